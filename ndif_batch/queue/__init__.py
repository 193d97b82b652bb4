"""The SQL queue: jobs, shards, leases, events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ndif_batch.queue.store import Queue

__all__ = ["Queue"]


def __getattr__(name: str) -> Any:
    """``Queue`` on first use, so that the records can be imported without SQLAlchemy."""
    if name == "Queue":
        from ndif_batch.queue.store import Queue

        return Queue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
