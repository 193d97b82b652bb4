"""The Zarr stores with the results: written whole, read by anyone.

``ArchiveSpec`` and its parts are plain data; Zarr is imported when something is written or read.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ndif_batch.archive.arrays import ArraySpec
from ndif_batch.archive.reduction import ReducedSpec, ReduceOp
from ndif_batch.archive.size import ArchiveSize, archive_size
from ndif_batch.archive.spec import ArchiveSpec, AxisSpec, TaskStatus, distinct_dims, read_arrays
from ndif_batch.archive.verified import Deviation, Verified, merged

if TYPE_CHECKING:
    from ndif_batch.archive.accumulating import Accumulator
    from ndif_batch.archive.exporting import ExportFormat, export
    from ndif_batch.archive.integrity import Problem
    from ndif_batch.archive.judge import Judge
    from ndif_batch.archive.lifecycle import clean, create, finish, remove
    from ndif_batch.archive.results import Results
    from ndif_batch.archive.saved import SavedTasks
    from ndif_batch.archive.stored import all_stored
    from ndif_batch.archive.tasks import SavedTask, completed
    from ndif_batch.archive.writer import write_shard

__all__ = [
    "Accumulator",
    "ArchiveSize",
    "ArchiveSpec",
    "ArraySpec",
    "AxisSpec",
    "Deviation",
    "ExportFormat",
    "Judge",
    "Problem",
    "ReduceOp",
    "ReducedSpec",
    "Results",
    "SavedTask",
    "SavedTasks",
    "TaskStatus",
    "Verified",
    "all_stored",
    "archive_size",
    "clean",
    "completed",
    "create",
    "distinct_dims",
    "export",
    "finish",
    "merged",
    "read_arrays",
    "remove",
    "write_shard",
]

_HOMES = {
    "Accumulator": "accumulating",
    "ExportFormat": "exporting",
    "Judge": "judge",
    "Problem": "integrity",
    "Results": "results",
    "SavedTask": "tasks",
    "SavedTasks": "saved",
    "all_stored": "stored",
    "clean": "lifecycle",
    "completed": "tasks",
    "create": "lifecycle",
    "export": "exporting",
    "finish": "lifecycle",
    "remove": "lifecycle",
    "write_shard": "writer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
