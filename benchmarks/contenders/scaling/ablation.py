"""The tasks that are counted: every one has its own prompt, layer and position, so that they share no work."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from contenders.protocol import Problem, compete
from contenders.shapes import SHAPES

TOKEN = 5
"""The token whose logit is saved."""

SAMPLE = 8
"""Values that are compared in each case: those of the first tasks, which raw hooks compute, too."""


@dataclass(frozen=True)
class Ablation:
    """Block ``layer`` of a run over ``prompt`` gives zeros at ``position``."""

    prompt: tuple[int, ...]
    layer: int
    position: int


def case(tasks: int, tokens: int) -> str:
    """A case's name."""
    return f"{tasks} tasks of {tokens} tokens"


def ablations(problem: Problem, tasks: int, tokens: int) -> list[Ablation]:
    """The same ones in every process."""
    source = random.Random(f"{tasks} {tokens}")
    words, layers = SHAPES[problem.subject.shape].vocabulary, problem.subject.layers
    return [
        Ablation(
            tuple(source.randrange(3, words) for _ in range(tokens)),
            source.randrange(layers),
            source.randrange(tokens),
        )
        for _ in range(tasks)
    ]


def compute_all(problem: Problem, compute: Callable[[Sequence[Ablation]], Any], libraries: Sequence[str]) -> None:
    """Times ``compute`` (ablations → logits) for every case, warmed up on a few tasks of each."""
    given = {case(tasks, tokens): ablations(problem, tasks, tokens) for tasks, tokens in problem.work["cases"]}
    cases = {name: partial(sample, compute, tasks) for name, tasks in given.items()}
    compete(problem, cases, libraries, warm=lambda: [compute(tasks[:SAMPLE]) for tasks in given.values()])


def sample(compute: Callable[[Sequence[Ablation]], Any], tasks: Sequence[Ablation]) -> Any:
    return compute(tasks)[:SAMPLE]
