"""What a pilot is asked to be, what is seen of it, and what every launcher can do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from ndif_batch.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PilotRequest:
    """A pilot to start.

    ``name`` is its identity for good: no two pilots of a launcher's folder ever have the same. ``config`` is the
    settings file it reads, ``resources`` are in submitit's words (``timeout_min``, ``mem_gb``, ``gpus_per_node``,
    ``cpus_per_task``, ``slurm_partition``, …), ``environment`` is added to its variables before anything is loaded.
    It ends after ``idle_seconds`` without work. Raises ``UsageError`` for a name that is no name of a file.
    """

    name: str
    model: str
    config: Path | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    idle_seconds: float | None = 300.0

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot name a pilot", hint="letters, digits, '.', '_' and '-'; 64 characters at most"
            )


class PilotState(StrEnum):
    """Where a pilot is, as its launcher sees it."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Observed:
    """One pilot. ``reason`` is why it waits or how it ended in Slurm's words, with its error's text if it had one."""

    state: PilotState
    external_id: str
    reason: str = ""
    node: str = ""


class Launcher(Protocol):
    """Pilots as processes. They are known by their names: an external id may be given to another after a crash."""

    def start(self, request: PilotRequest) -> str:
        """Start or queue a pilot and give its external id.

        Raises ``ConflictError`` if a pilot of that name was ever started, ``SettingsError`` for resources that
        cannot be had, ``UnavailableError`` when nothing can start now. What was refused leaves no folder, but Slurm
        may list it as ended.
        """

    def observe(self) -> Mapping[str, Observed]:
        """All pilots of this launcher's folder by name, in one query, whoever started them.

        A pilot that ended is ``ENDED`` at first and then forgotten: one that is absent has ended or never began.
        Raises ``UnavailableError`` when nothing can be seen now, which says nothing about the pilots.
        """

    def cancel(self, name: str) -> None:
        """End a pilot without asking it. Nothing happens if it has ended."""

    def drain(self, name: str) -> None:
        """Ask a pilot to finish its pass, give back the rest and end; one that has not begun never begins."""
