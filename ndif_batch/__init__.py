"""Runs interpretability experiments in bulk: intervention graphs of many users in one forward pass.

Names are imported when they are first used: importing the package alone brings in no model framework, no array store
and no database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndif_batch.client import Client, JobHandle, LanguageModel, LocalWorker, Plan, TaskResult, as_completed
    from ndif_batch.config import Settings
    from ndif_batch.errors import (
        BusyError,
        ConflictError,
        GraphError,
        IntegrityError,
        KeyReusedError,
        ModelError,
        NdifBatchError,
        NotAllowedError,
        NotAuthenticatedError,
        NotFoundError,
        SettingsError,
        ShapeError,
        SweepError,
        TaskError,
        TimedOutError,
        TraceError,
        UnavailableError,
        UsageError,
    )
    from ndif_batch.trace import param

__all__ = [
    "BusyError",
    "Client",
    "ConflictError",
    "GraphError",
    "IntegrityError",
    "JobHandle",
    "KeyReusedError",
    "LanguageModel",
    "LocalWorker",
    "ModelError",
    "NdifBatchError",
    "NotAllowedError",
    "NotAuthenticatedError",
    "NotFoundError",
    "Plan",
    "Settings",
    "SettingsError",
    "ShapeError",
    "SweepError",
    "TaskError",
    "TaskResult",
    "TimedOutError",
    "TraceError",
    "UnavailableError",
    "UsageError",
    "as_completed",
    "param",
]

_HOMES = {
    "Client": "client",
    "JobHandle": "client",
    "LanguageModel": "client",
    "LocalWorker": "client",
    "Plan": "client",
    "Settings": "config",
    "TaskResult": "client",
    "as_completed": "client",
    "param": "trace",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
