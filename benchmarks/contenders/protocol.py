"""What a contender is given and gives back: a folder with the problem in it, to which it adds its answer."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

_STARTED = time.perf_counter()
PROBLEM, ANSWER, VALUES = "problem.json", "answer.json", "values.npz"
SHORT = 5.0
"""Seconds of one measurement that can well be made once more."""

LAYERS, TENSOR = "layers", "tensor"
PATIENCE = 20.0
"""Seconds of measured work after which a contender does not repeat a case."""


@dataclass(frozen=True)
class Subject:
    """The model of a problem. ``weights`` is a directory with safetensors, or ``None`` for random weights.

    ``parallel`` says how it lies on several ``devices``: layer after layer, or each weight split over all.
    """

    shape: str
    layers: int
    dtype: str
    device: str
    threads: int
    weights: str | None = None
    entry: str | None = None
    parallel: str | None = None
    devices: int = 1

    @property
    def processes(self) -> int:
        """How many share the model."""
        return self.devices if self.parallel == TENSOR else 1


@dataclass(frozen=True)
class Problem:
    """One piece of work for every contender: ``work`` is the benchmark's own, plain data.

    ``arguments`` are the contender's; every case is timed ``repeats`` times.
    """

    subject: Subject
    work: Mapping[str, Any]
    arguments: Mapping[str, Any]
    repeats: int = 1
    batch_tokens: int | None = None

    def write(self, folder: Path) -> None:
        """Puts the problem into ``folder``, where :func:`read` finds it."""
        (folder / PROBLEM).write_text(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Measured:
    """By case: the seconds of each repeat and the values that came out; and the libraries' versions.

    ``placed`` is what there is to say of a model on several devices.
    """

    seconds: Mapping[str, list[float]]
    values: Mapping[str, np.ndarray[Any, Any]]
    versions: Mapping[str, str]
    placed: Mapping[str, Any]


def read() -> Problem:
    """The problem in the folder that this process was given."""
    data = json.loads((Path(sys.argv[1]) / PROBLEM).read_text())
    return Problem(**data | {"subject": Subject(**data["subject"])})


def compete(
    problem: Problem, cases: Mapping[str, Callable[[], Any]], libraries: Iterable[str], warm: Callable[[], object]
) -> None:
    """Warms up, times every case in turn, ``repeats`` times over, and writes the answer.

    A case gives its values as numbers on the CPU, so that nothing is left running on a GPU when the clock stops. What
    is short there is warmed up with itself: its first time loads kernels.
    """
    loaded = time.perf_counter()
    warm()
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    values: dict[str, Any] = {}
    busy: list[float] = []
    with _watched(problem.subject, busy):
        for repeat in range(problem.repeats):
            for case, work in cases.items():
                if repeat and _enough(problem, sum(seconds[case])):
                    continue
                took, found = timed(work)
                if not repeat and problem.subject.device == "cuda" and took < SHORT:
                    took, found = timed(work)
                seconds[case].append(took)
                values[case] = np.asarray(found, dtype=np.float32)
    if int(os.environ.get("RANK", "0")):
        return
    versions = {"python": platform.python_version()} | {name: version(name) for name in libraries}
    folder = Path(sys.argv[1])
    np.savez(folder / VALUES, **values)
    answer = {"seconds": seconds, "versions": versions, "placed": _placed(problem.subject, loaded - _STARTED, busy)}
    (folder / ANSWER).write_text(json.dumps(answer))


def _enough(problem: Problem, seconds: float) -> bool:
    """Whether a case was measured long enough; of several processes all say the same."""
    enough = seconds > PATIENCE
    if problem.subject.processes == 1:
        return enough
    from contenders import placed

    return enough if placed.ranks().leads else bool(placed.ranks().said(enough))


def _watched(subject: Subject, busy: list[float]) -> AbstractContextManager[None]:
    if subject.parallel is None:
        return nullcontext()
    from contenders import placed

    return placed.watching_load(subject, busy)


def _placed(subject: Subject, load_seconds: float, busy: list[float]) -> dict[str, Any]:
    if subject.parallel is None:
        return {}
    from contenders import placed

    return {"load_seconds": round(load_seconds, 1), "memory_gib": placed.memory_gib(subject), "busy": busy}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """How many seconds it took, and what came out."""
    begun = time.perf_counter()
    found = work()
    return time.perf_counter() - begun, found


def parse(folder: Path) -> Measured:
    """The answer that a contender left in ``folder``."""
    answer = json.loads((folder / ANSWER).read_text())
    with np.load(folder / VALUES) as values:
        return Measured(answer["seconds"], dict(values), answer["versions"], answer["placed"])
