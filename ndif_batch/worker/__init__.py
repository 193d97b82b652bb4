"""The process that holds one model and drains its shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndif_batch.worker.process import run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    """``run`` on first use, so that the loop can be imported without the engine."""
    if name == "run":
        from ndif_batch.worker.process import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
