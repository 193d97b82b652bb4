"""Where a process of a chaos run dies, and what it takes for the time: patches of the product, from outside it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from ndif_batch.archive import files
from ndif_batch.queue import database

TORN = "a write"
DISK = (TORN, "os:fsync", "os:replace", "os:rename", "os:unlink")
DATABASE = "sqlalchemy.engine:RootTransaction.commit"
QUEUE = "ndif_batch.queue.store:Queue."
LAUNCHER = "ndif_batch.launcher.local:LocalLauncher."
POINTS = {
    "worker": (
        *DISK,
        DATABASE,
        *(f"{QUEUE}{method}" for method in ("register_worker", "lease", "heartbeat", "commit", "ended")),
        "ndif_batch.worker.jobs:create",
        "ndif_batch.worker.jobs:finish",
        "ndif_batch.worker.committing:write_shard",
    ),
    "remote worker": (*DISK, "ndif_batch.queue.remote:RemoteQueue._ask", "ndif_batch.worker.jobs:finish"),
    "scheduler": (
        DATABASE,
        *(f"{QUEUE}{method}" for method in ("add_pilot", "update_pilot", "lose_worker")),
        *(f"{LAUNCHER}{method}" for method in ("start", "observe", "cancel", "drain")),
    ),
    "server": (DATABASE, *(f"{QUEUE}{method}" for method in ("submit", "register_worker", "lease", "commit"))),
}
"""By who may die there: functions by module and name."""


@dataclass(frozen=True)
class Doom:
    """A death just before, or just ``after``, the call number ``turn`` (from 0) of a function."""

    point: str
    after: bool
    turn: int

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.point.rpartition(':')[2]}"


def die() -> NoReturn:
    """As ``kill -9`` does it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it lives")


def arm(doom: Doom) -> None:
    """From now on this process is doomed."""
    if doom.point == TORN:
        _tear(doom)
        return
    module, _, path = doom.point.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    setattr(owner, name, _fatal(getattr(owner, name), doom))


def _fatal(function: Callable[..., Any], doom: Doom) -> Callable[..., Any]:
    left = doom.turn

    def called(*args: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        last = left < 0
        if last and not doom.after:
            die()
        answer = function(*args, **named)
        if last:
            die()
        return answer

    return called


def _tear(doom: Doom) -> None:
    """A shard's file is half written, or just not closed."""
    left = doom.turn

    def opened(path: Path, mode: str) -> Any:
        nonlocal left
        left -= 1
        file = open(path, mode)  # noqa: SIM115 -- whoever asked for it closes it
        return _Torn(file, doom.after) if left < 0 else file

    vars(files)["open"] = opened


@dataclass
class _Torn:
    file: Any
    whole: bool

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> NoReturn:
        self.file.write(data if self.whole else data[: len(data) // 2])
        self.file.flush()
        die()


def shift(clock: Path, skew: float) -> None:
    """This process's time is off by ``skew`` seconds, and by those that the file ``clock`` holds at the moment."""
    true = time.time

    def told() -> float:
        return true() + skew + float(clock.read_text())

    class Shifted:
        @staticmethod
        def now(zone: tzinfo | None = None) -> datetime:
            return datetime.fromtimestamp(told(), zone)

    time.time = told
    vars(database)["datetime"] = Shifted
