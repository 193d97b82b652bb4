"""Whether an engine waits for the disk: passes of a fixed length give shards to the worker's writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, TaskStatus, create, write_shard
from ndif_batch.worker.writer import Writer

TASKS, WIDTH = 32, 131_072
"""A shard of 16 MiB."""


def measure(folder: Path, passes: int, pass_seconds: float) -> dict[str, Any]:
    """The engine gives a shard at the end of each pass, as a GPU does while its host is free."""
    spec = ArchiveSpec(
        (AxisSpec("task", {"task": range(TASKS * passes)}),),
        (TASKS,),
        (ArraySpec.saved("resid", "bfloat16", (WIDTH,)),),
    )
    create(folder / "job.zarr", spec)
    values = np.random.default_rng(0).standard_normal((TASKS, WIDTH), np.float32)
    values.view(np.uint32)[...] &= 0xFFFF0000
    status = [TaskStatus.SAVED] * TASKS
    committed: list[int] = []

    def write(number: int) -> bool:
        write_shard(folder / "job.zarr", spec, number * TASKS, {"resid": list(values)}, status)
        return True

    def commit(numbers: Sequence[int]) -> None:
        committed.extend(numbers)

    waited = []
    began = perf_counter()
    with Writer(write, commit, lambda number: values.nbytes) as writer:
        for number in range(passes):
            sleep(pass_seconds)
            put = perf_counter()
            writer.put(number)
            waited.append(perf_counter() - put)
        engine_ended = perf_counter()
    return {
        "passes": passes,
        "pass_seconds": pass_seconds,
        "shard_bytes": values.nbytes,
        "bytes_per_second": values.nbytes / pass_seconds,
        "waited_seconds": sum(waited),
        "longest_wait_ms": 1000 * max(waited),
        "waited_share": sum(waited) / (engine_ended - began),
        "seconds_after_the_last_pass": perf_counter() - engine_ended,
        "committed": len(committed),
    }
