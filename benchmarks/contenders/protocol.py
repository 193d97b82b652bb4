"""What a contender is given and gives back: one JSON object in its arguments, one JSON object as its last line."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

Values = list[list[float]]
"""Logit differences ``[layers, positions]``."""


@dataclass(frozen=True)
class Problem:
    """Patch the residual of every layer and position of ``clean`` into ``corrupted``, one run each.

    ``weights`` is a directory with config and safetensors, ``entry`` its entry in the model cache; prompts are token
    ids of equal number; the measured value of a run is ``logit(answer) - logit(distractor)`` at its last token.
    """

    weights: str
    entry: str
    layers: int
    clean: list[int]
    corrupted: list[int]
    answer: int
    distractor: int
    device: str
    threads: int

    @property
    def positions(self) -> range:
        """Every token of a prompt."""
        return range(len(self.clean))

    def to_argument(self) -> str:
        """The command-line argument that :func:`read` reads back."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Measured:
    """Seconds of the sweep, the values that it gave, and with which versions."""

    seconds: float
    values: Values
    versions: dict[str, str]


def read() -> Problem:
    """The problem in this process's arguments."""
    return Problem(**json.loads(sys.argv[1]))


def compete(problem: Problem, patch: Callable[[Sequence[int]], Values], libraries: Sequence[str]) -> None:
    """Warms ``patch`` (layers → values) up on one layer, times it on all of them, prints the answer."""
    patch([0])
    begun = time.perf_counter()
    values = patch(range(problem.layers))
    seconds = time.perf_counter() - begun
    versions = {"python": platform.python_version()} | {name: version(name) for name in libraries}
    print(json.dumps(asdict(Measured(seconds, values, versions))))


def parse(output: str) -> Measured:
    """What a contender printed last."""
    return Measured(**json.loads(output.strip().splitlines()[-1]))


def load_model(problem: Problem) -> Any:
    """The Hugging Face model in float32, ready for forward passes."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(problem.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    model: Any = AutoModelForCausalLM.from_pretrained(problem.weights, dtype=torch.float32)
    return model.to(problem.device).eval()
