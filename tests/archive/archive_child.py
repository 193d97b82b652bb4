"""What the tests do in processes of their own: die at a chosen step, run into a limit, race another writer."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import xarray  # noqa: F401  (before the forks, that each need not import it)

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, Results, TaskStatus, clean, create, finish, write_shard
from ndif_batch.errors import UnavailableError
from tests.archive.archive_example import example_spec, write_all, write_tile

STEPS = {"mkdir", "write", "flush", "fsync", "rename", "replace", "unlink"}


def die_at(step: int) -> None:
    """Kill this process just before its ``step``-th change to the file system, in whichever thread."""
    left = step

    def count(_: FrameType, event: str, called: Any) -> None:
        nonlocal left
        if event == "c_call" and called.__name__ in STEPS:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    threading.setprofile(count)


def survives(work: Callable[[], None], step: int) -> bool:
    """Run ``work`` in a fork that dies at ``step``; whether it was done before that."""
    child = os.fork()
    if child == 0:
        die_at(step)
        work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code == 0


def holds(*checks: Callable[[], object]) -> None:
    """Run ``checks`` in a fork, so that this process never starts Zarr's threads."""
    child = os.fork()
    if child == 0:
        for check in checks:
            check()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def small_spec() -> ArchiveSpec:
    """Two tiles of two tasks, a scalar and a ragged save."""
    arrays = (ArraySpec.saved("loss", "float32"), ArraySpec.saved("resid", "bfloat16", (4, 3), ragged=(0,)))
    return ArchiveSpec((AxisSpec("layer", {"layer": range(4)}),), (2,), arrays, {"job": 7})


def check_readable(path: Path) -> None:
    """Nothing is damaged, and what is said to be saved is what was saved."""
    if path.exists():
        results = Results(path)
        assert results.verify() == []
        assert set(results.xarray().data_vars) == {"loss", "resid"}
        done = results.status() == TaskStatus.SAVED
        np.testing.assert_array_equal(np.asarray(results["loss"][...])[done], np.arange(4)[done] / 4)


def check_complete(path: Path) -> None:
    """Every task is there, and of the dead writers nothing once cleaned."""
    check_readable(path)
    assert (Results(path).status() == TaskStatus.SAVED).all()
    clean(path)
    assert not [*path.rglob("*.tmp"), *path.parent.glob(".*.tmp")]


def crash(path: Path, deed: str, stride: int) -> None:
    """Kill ``deed`` at every ``stride``-th of its steps in turn, then again, whole; print how many it has."""
    spec, model = small_spec(), path.with_name("model")
    work: dict[str, Callable[[], None]] = {
        "create": lambda: create(path, spec),
        "write": lambda: write_tile(path, spec, (1,)),
        "finish": lambda: finish(path, {"gpu": "none"}),
    }
    holds(lambda: create(model, spec), lambda: write_tile(model, spec, (0,)))
    if deed == "finish":
        holds(lambda: write_tile(model, spec, (1,)), lambda: finish(model, {"gpu": "another"}))
    step, done = 0, False
    while not done:
        shutil.rmtree(path, ignore_errors=True)
        if deed != "create":
            shutil.copytree(model, path)
        done = survives(work[deed], step)
        again = (lambda: create(path, spec), lambda: write_all(path, spec, None), work[deed])
        holds(lambda: check_readable(path), *again, lambda: check_complete(path))
        step += stride
    print(json.dumps({"steps": step - stride}))


def limit(path: Path, size: int) -> None:
    """Write a shard that is larger than a file may be; print the error."""
    spec = example_spec()
    write_tile(path, spec, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        write_tile(path, spec, (1, 0))
    except UnavailableError as error:
        print(json.dumps({"message": error.message, "hint": error.hint}))


def race(path: Path, parity: int, rounds: int) -> None:
    """Write every second tile, again and again."""
    spec = example_spec()
    for _ in range(rounds):
        for number, index in enumerate(spec.grid.indices()):
            if number % 2 == parity:
                write_tile(path, spec, index)


def large(path: Path, deed: str, mebibytes: int, ragged: int) -> None:
    """Write or verify a tile of one large task; print the bytes on disk and by how much the peak memory grew."""
    shape = (mebibytes * 2**8, 1024)
    array = ArraySpec.saved("x", "float32", shape, ragged=(0,) if ragged else ())
    spec = ArchiveSpec((AxisSpec("layer", {"layer": range(2)}),), (1,), (array,))
    create(path, spec)
    small = np.zeros((1, 1024), np.float32)
    value = np.random.default_rng(0).standard_normal((shape[0] - ragged, 1024), np.float32)
    write_shard(path, spec, 1, {"x": [None if not ragged else small]}, [TaskStatus.FAILED])
    if deed == "write":
        before = peak()
        write_shard(path, spec, 0, {"x": [value]}, [TaskStatus.SAVED])
    else:
        write_shard(path, spec, 0, {"x": [value]}, [TaskStatus.SAVED])
        before = peak()
        assert Results(path).verify() == []
    print(json.dumps({"stored": (path / "x" / "c.0.0.0").stat().st_size, "grown": peak() - before}))


def peak() -> int:
    """The most memory that this process has taken so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    name, where, *rest = sys.argv[1:]
    if name == "crash":
        crash(Path(where), rest[0], int(rest[1]))
    elif name == "large":
        large(Path(where), rest[0], int(rest[1]), int(rest[2]))
    elif name == "finish":
        for number in range(int(rest[0])):
            finish(Path(where), {"round": number})
    elif name == "limit":
        limit(Path(where), int(rest[0]))
    else:
        race(Path(where), int(rest[0]), int(rest[1]))
