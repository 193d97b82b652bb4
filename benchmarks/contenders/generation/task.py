"""What every contender of generation does: continue prompts, with one layer saved at every step, and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contenders.protocol import Problem, compete

Prompts = Sequence[Sequence[int]]

WARM = 2
SAVING, PLAIN = "layer saved at every step", "tokens alone"


@dataclass(frozen=True)
class Generating:
    """``steps`` tokens after each prompt; saved is the output of block ``layer`` at the last token of each step,
    ``[prompts, steps, width]``. ``rows`` prompts of about equal length go together where a peer pads."""

    prompts: Prompts
    layer: int
    steps: int
    rows: int


def generating(problem: Problem) -> Generating:
    return Generating(**problem.work)


def in_batches(prompts: Prompts, rows: int) -> list[list[int]]:
    """Numbers of prompts, those of about equal length together."""
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    return [order[first : first + rows] for first in range(0, len(order), rows)]


def generate_all(
    problem: Problem,
    libraries: Sequence[str],
    save: Callable[[Prompts], Any] | None = None,
    continued: Callable[[Prompts], Any] | None = None,
) -> None:
    """Times what a contender can do on all prompts, warmed up on a few. Tokens are ``[prompts, steps]``."""
    prompts = generating(problem).prompts
    found = {SAVING: save, PLAIN: continued}
    cases = {name: lambda one=one: one(prompts) for name, one in found.items() if one is not None}
    compete(problem, cases, libraries, warm=lambda: [one(prompts[:WARM]) for one in found.values() if one is not None])
