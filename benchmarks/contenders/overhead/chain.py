"""The chain that every contender computes: so little work that what remains is the price of each task and node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from contenders.protocol import Problem, compete

SHIFT = 0.25
TIMES, INVOKES = 50, 32
"""How often each of nnsight's costs is paid in one measurement, and how many invokes are in a trace there."""


@dataclass(frozen=True)
class Chains:
    """A task a prompt and scale. The cases have chains of ``nodes`` operations, multiplications and additions in turn.

    Prompts are equally long, so that plain rows are the same pack; scales differ, so that no two tasks are alike.
    """

    prompts: Sequence[Sequence[int]]
    scales: Sequence[float]
    nodes: Sequence[int]


def chains(problem: Problem) -> Chains:
    return Chains(**problem.work)


def chain(value: Any, scale: Any, nodes: int) -> Any:
    """``nodes`` operations on ``value``, for numbers of any library."""
    for node in range(nodes):
        value = value + SHIFT if node % 2 else value * scale
    return value


def case(nodes: int) -> str:
    """A case's name."""
    return f"{nodes} nodes"


def compute_all(problem: Problem, compute: Callable[[int], Any], libraries: Sequence[str]) -> None:
    """Times ``compute`` (nodes → vectors) for every length of chain, warmed up on the longest."""
    lengths = chains(problem).nodes
    cases = {case(nodes): partial(compute, nodes) for nodes in lengths}
    compete(problem, cases, libraries, warm=partial(compute, max(lengths)))
