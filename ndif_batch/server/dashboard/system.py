"""The page of the system: versions, who leads, where things lie, the settings in force, and pauses."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ndif_batch.config import Settings, without_password
from ndif_batch.queue import schema
from ndif_batch.queue.controls import HALF_LIFE
from ndif_batch.scheduling.policy import HALF_LIFE_HOURS
from ndif_batch.server.dashboard.overview import leads
from ndif_batch.server.dashboard.visit import Visit

STARTED = datetime.now(UTC)
PACKAGES = ("fastapi", "sqlalchemy", "torch", "transformers", "zarr")


def read(visit: Visit) -> Mapping[str, Any]:
    """What the page shows."""
    queue, settings = visit.queue, visit.queue.server_settings
    now, stored = queue.queue.now(), queue.settings()
    return {
        "now": now,
        "version": version("ndif-batch"),
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": STARTED,
        "database": without_password(settings.database),
        "schema": schema.head(),
        "leads": leads(visit),
        "stored": stored,
        "paused": bool(stored.get("pause")),
        "half_life": stored.get(HALF_LIFE, HALF_LIFE_HOURS),
        "settings": in_force(settings),
    }


def in_force(settings: Settings) -> dict[str, str]:
    """Every setting by name, without secrets."""
    derived = {"database_url": settings.database, "archive_dir": settings.archive}
    found: dict[str, str] = {}
    for name in Settings.model_fields:
        if name == "cluster":
            found |= {f"cluster.{part}": str(value) for part, value in dict(settings.cluster).items()}
        elif name != "token":
            found[name] = without_password(str(derived.get(name, getattr(settings, name))))
    return found
