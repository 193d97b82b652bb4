"""The processes of a chaos run: the product's own, but for a toy engine, and for what befalls them."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np

from ndif_batch.config import Settings, load_settings
from ndif_batch.errors import UnavailableError
from ndif_batch.launcher import Launcher
from ndif_batch.launcher import pilot as pilots
from ndif_batch.launcher.local import LocalLauncher
from ndif_batch.launcher.slurm import SlurmLauncher
from ndif_batch.models.info import ModelInfo
from ndif_batch.queue.records import ModelRecord
from ndif_batch.scheduler import loop, tick
from ndif_batch.server import process as served
from ndif_batch.sweep.task import Task
from ndif_batch.worker import process
from ndif_batch.worker.jobs import OpenJobs
from ndif_batch.worker.provenance import Runtime
from ndif_batch.worker.signals import SIGNALS
from tests import toy
from tests.chaos.points import Doom, arm, shift
from tests.worker.toy_engine import ToyEngine

GAVE_UP = 75
"""Exit status of who has waited for disk or queue as long as it may."""
BROKEN = "broken"
"""In a pilot's folder: why its worker ended, if it should not have."""
CLOCK = "CHAOS_CLOCK"
PACE_SECONDS = 0.01
BATCH_TOKENS = 9
LEADS_SECONDS = 2.0
DIES_WITH_PARENT = 1
HERE = Path("/dev/null")


@dataclass(frozen=True)
class Birth:
    """What a process starts with: its variables, where it logs, the clock of its host, its doom, and how wrong that is.

    ``told`` gets its last words, if it does not end well.
    """

    environment: Mapping[str, str]
    log: Path
    clock: Path
    told: Path
    doom: Doom | None = None
    skew: float = 0.0


def logit(task: Task) -> np.float32:
    """What a task saves beside the residual: it tells which task it was."""
    total = 0
    for name, weight in {"layer": 1000, "position": 100, "answer": 1}.items():
        value = task.bindings[name]
        assert isinstance(value, int)
        total += weight * value
    return np.float32(total)


def _slowly(task: Task, saves: dict[str, Any]) -> None:
    time.sleep(PACE_SECONDS)
    saves["logit"] = logit(task)


@dataclass
class ChaosEngine(ToyEngine):
    """A toy engine that takes its time, as :func:`ndif_batch.worker.process.run` knows engines."""

    after: Callable[[Task, dict[str, Any]], None] = _slowly
    batch_tokens: int = BATCH_TOKENS
    interrupted: Any = None
    model: Any = field(default_factory=lambda: SimpleNamespace(gpus=1, device=SimpleNamespace(type="cpu")))


def _ready(settings: Settings, record: ModelRecord, *_: object) -> tuple[ChaosEngine, OpenJobs]:
    info = ModelInfo.read(Path(record.path))
    return ChaosEngine(), OpenJobs(record, info.tokenizer, Runtime("here", "cpu", "packed"), settings.blobs)


def _with_toys() -> None:
    changes = {"_ready": _ready, "Engine": lambda model, beside: ChaosEngine(), "LEASE_PASSES": 3, "AHEAD_PASSES": 1}
    vars(process).update(changes)


def worker(birth: Birth) -> NoReturn:
    """A worker that somebody started by hand."""

    def work() -> None:
        _with_toys()
        process.run(load_settings(), toy.NAME)

    _live(birth, work)


def scheduler(birth: Birth, kind: str) -> NoReturn:
    """A scheduler whose pilots are toys, too, and which takes over quickly from one that died."""

    def work() -> None:
        kinds: dict[str, Callable[..., Launcher]] = {"local": LocalLauncher, "slurm": SlurmLauncher}
        vars(loop)["open_launcher"] = lambda name, folder, gpus: kinds[kind](folder, pilot)
        vars(tick)["LEADS_SECONDS"] = LEADS_SECONDS
        loop.run(load_settings())

    _live(birth, work)


def server(birth: Birth, socket: Path) -> NoReturn:
    """A server at a Unix socket."""

    def work() -> None:
        with served.listening(socket) as listener:
            served.run(load_settings(), listener)

    _live(birth, work)


def pilot(folder: Path) -> None:
    """What the launchers start; the clock of its host comes from who started it."""
    _with_toys()
    shift(Path(os.environ[CLOCK]), 0.0)
    try:
        pilots.run(folder, _carry_out)
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _carry_out(folder: Path) -> str:
    try:
        return pilots.carry_out(folder)
    except UnavailableError:
        raise
    except Exception:
        (folder / BROKEN).write_text(traceback.format_exc())
        raise


def _live(birth: Birth, work: Callable[[], None]) -> NoReturn:
    ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    with birth.log.open("ab", buffering=0) as log, HERE.open() as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for name in [name for name in os.environ if name.startswith("NDIF_BATCH_")]:
        del os.environ[name]
    os.environ.update({**birth.environment, CLOCK: str(birth.clock)})
    shift(birth.clock, birth.skew)
    if birth.doom is not None:
        arm(birth.doom)
    try:
        work()
    except UnavailableError:
        status, words = GAVE_UP, traceback.format_exc()
    except BaseException:  # noqa: BLE001 -- told by the exit status
        status, words = 1, traceback.format_exc()
    else:
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    birth.told.write_text(words)
    os._exit(status)
