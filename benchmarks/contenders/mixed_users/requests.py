"""The requests that every contender of mixed users answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contenders.protocol import Problem, compete

WARM = 4


@dataclass(frozen=True)
class Request:
    """Sets neurons ``[first, stop)`` of the MLP of block ``write`` to ``value`` at every token.

    Asks for the output of block ``read`` at the last token, ``[width]``.
    """

    prompt: list[int]
    read: int
    write: int
    first: int
    stop: int
    value: float

    @property
    def last(self) -> int:
        """The deepest block that the answer needs."""
        return max(self.read, self.write)


def requests(problem: Problem) -> list[Request]:
    return [Request(**request) for request in problem.work["requests"]]


def answer_all(problem: Problem, answer: Callable[[Sequence[Request]], Any], libraries: Sequence[str]) -> None:
    """Times ``answer`` (requests → vectors) on all requests, warmed up on a few."""
    given = requests(problem)
    compete(problem, {"": lambda: stacked(answer(given))}, libraries, warm=lambda: answer(given[:WARM]))


def stacked(vectors: Sequence[Any]) -> torch.Tensor:
    """The answers on the CPU, ``[requests, width]``."""
    return torch.stack(list(vectors)).float().cpu()
