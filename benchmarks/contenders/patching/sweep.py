"""The sweep that every contender of patching runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contenders.protocol import Problem, compete


@dataclass(frozen=True)
class Sweep:
    """Prompts are token ids of equal number; a run's value is ``logit(answer) - logit(distractor)`` at its end.

    Every ``every``-th layer is patched.
    """

    clean: list[int]
    corrupted: list[int]
    answer: int
    distractor: int
    every: int = 1

    @property
    def positions(self) -> range:
        """Every token of a prompt."""
        return range(len(self.clean))

    def cells(self, layers: Sequence[int]) -> list[tuple[int, int]]:
        """Layer and position of each run."""
        return [(layer, position) for layer in layers for position in self.positions]


def sweep(problem: Problem) -> Sweep:
    return Sweep(**problem.work)


def patch_all(problem: Problem, patch: Callable[[Sequence[int]], Any], libraries: Sequence[str]) -> None:
    """Times ``patch`` (layers → one value a run) on all layers, warmed up on the first."""
    layers = range(0, problem.subject.layers, sweep(problem).every)
    compete(problem, {"": lambda: patch(layers)}, libraries, warm=lambda: patch(layers[:1]))
