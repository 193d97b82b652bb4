"""What every contender of extraction reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contenders.protocol import Problem, compete

Prompts = Sequence[Sequence[int]]

WARM = 4


@dataclass(frozen=True)
class Reading:
    """The output of block ``layer`` at the last token of each prompt, ``[prompts, width]``."""

    prompts: Prompts
    layer: int


def reading(problem: Problem) -> Reading:
    return Reading(**problem.work)


def extract_all(problem: Problem, extract: Callable[[Prompts], Any], libraries: Sequence[str]) -> None:
    """Times ``extract`` on all prompts, warmed up on a few."""
    prompts = reading(problem).prompts
    compete(problem, {"": lambda: extract(prompts)}, libraries, warm=lambda: extract(prompts[:WARM]))
