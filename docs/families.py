"""Writes the page of model families: how each goes through the engine, as its tests measure it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from generate import NOTE

from tests.families import ALL
from tests.measured import Measured, measured

PAGE = Path(__file__).resolve().parent / "families.md"

WORDS = """\
Hugging Face families on which the engine is compared with the oracle (`tests/engine/test_families.py`): a random model
of three layers each, random graphs and sweeps of them side by side and alone, in float32. Which layout a model takes is
measured when it is loaded, not looked up in a list: a family that is missing here runs too.

- **layout**: `packed`, runs of any length lie on one axis and attention is the engine's; `rows`, runs of equal length
  are rows of one batch, without padding; `alone`, one run a pass.
- **branches**: from where on a changed run is computed apart from an unchanged one of the same prompt. In rows, runs
  that nothing changes are shared, changed ones are computed from the beginning.
- **sites**: modules' inputs and outputs, and what is inside attention, that a graph can touch; **refused**: those that
  it cannot (a module that is called twice in a pass, an axis that follows no run's tokens).
- **deviation**: the largest difference from the oracle, as a share of the saved tensor's largest value.
"""
COLUMNS = ("family", "class", "layout", "branches", "not packed because", "sites", "refused", "deviation")


def page() -> Iterator[str]:
    """The page line by line."""
    yield f"{NOTE}\n\n# Model families\n\n{WORDS}"
    yield _row(COLUMNS)
    yield "|---" * len(COLUMNS) + "|"
    for name in ALL:
        yield _row(_cells(measured(name)))


def _cells(found: Measured) -> tuple[str, ...]:
    return (*found.stable, f"{found.deviation:.0e}")


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text("\n".join(page()) + "\n")
