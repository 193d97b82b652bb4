"""The page of the archive: whose results take up how much, which jobs the most, and until when they are kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from ndif_batch.server.dashboard.visit import Visit

LARGEST = 50


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    queue = visit.queue
    figures = queue.archive_figures()
    return {
        "now": queue.queue.now(),
        "figures": figures,
        "total": sum(one.bytes for one in figures),
        "quotas": {user.name: user.quotas.archive_bytes for user in queue.users()},
        "largest": queue.largest_archives(LARGEST),
        "disk": _disk(visit) if visit.me.sees_all else None,
        "retention_days": queue.server_settings.retention_days,
        "place": queue.server_settings.archive,
    }


def _disk(visit: Visit) -> Any:
    try:
        return shutil.disk_usage(visit.queue.server_settings.archive)
    except OSError:
        return None
