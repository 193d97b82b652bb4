"""A worker process: the real queue, the loaded model, the archive, a heartbeat, and signals."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import structlog

from ndif_batch.config import Settings
from ndif_batch.engine.engine import Engine
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.model import load
from ndif_batch.engine.processes import split_model
from ndif_batch.engine.usage import device_usage
from ndif_batch.errors import TimedOutError, UnavailableError
from ndif_batch.models.info import ModelInfo
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import DeviceReading
from ndif_batch.queue.http import HttpWorkerQueue, Line
from ndif_batch.queue.protocol import LEASE_PASSES, WorkerQueue
from ndif_batch.queue.records import ModelRecord
from ndif_batch.queue.telemetry import Gauge
from ndif_batch.worker.busy import Busy
from ndif_batch.worker.ending import Pressing, Until
from ndif_batch.worker.environment import without_secrets
from ndif_batch.worker.heartbeat import Heartbeat
from ndif_batch.worker.jobs import OpenJobs
from ndif_batch.worker.logs import configure_logs
from ndif_batch.worker.loop import Worker
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.patience import Patience
from ndif_batch.worker.progress import Progress
from ndif_batch.worker.provenance import Runtime
from ndif_batch.worker.signals import on_signals, terminate_at_eof
from ndif_batch.worker.walltime import PILOT, Walltime, walltime

log: structlog.stdlib.BoundLogger = structlog.get_logger()

AHEAD_PASSES = 4
"""How many passes' worth of the tokens that a worker holds are left when it leases the next."""


def run(
    settings: Settings,
    model_name: str,
    *,
    until_idle: bool = False,
    idle_seconds: float | None = None,
    until_eof: bool = False,
    once: bool = False,
    device: str = "auto",
    walltime_seconds: float | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    load: Callable[[ModelInfo, str], LoadedModel] = load,
) -> Progress:
    """Load a model and drain its shards; ends when a signal or the queue asks for it, or as the options say.

    ``until_idle`` ends when no job of the model is left, ``idle_seconds`` after so long without work, ``until_eof``
    with standard input, ``once`` after one round. ``load`` is how the model comes to be. Before ``walltime_seconds`` or
    the end of its Slurm job it ends in good order. Raises ``NotFoundError`` for an unknown model, ``TimedOutError`` if
    that was too short for anything, and ``UnavailableError`` when queue or disk cannot serve.
    """
    configure_logs()
    if until_eof:
        terminate_at_eof(sys.stdin.fileno())
    end = walltime(walltime_seconds, os.environ, time.time())
    patience = Patience(settings.lease_seconds)
    with without_secrets(), _queue(settings) as queue:
        record = queue.model(model_name)
        worker_id = _registered(queue, model_name, patience)
        places = ExitStack()
        structlog.contextvars.bind_contextvars(worker=worker_id, model=model_name)
        try:
            try:
                with on_signals(_leave):
                    engine, jobs = _ready(settings, record, device, load, places)
            except _Left as left:
                return _left_early(left, end)
            if end.over:
                raise _too_short("loaded its model")
            meter = Meter(engine.counters, engine.model.gpus)
            heart = Heartbeat(
                queue,
                worker_id,
                lease_seconds=settings.lease_seconds,
                every_seconds=settings.heartbeat_seconds,
                device=partial(_reading, engine.model, Busy(meter), meter.gauge),
            )
            engine.interrupted = Pressing(heart.draining, end)
            worker = Worker(
                queue,
                engine,
                jobs,
                heart,
                model=model_name,
                max_tokens=LEASE_PASSES * engine.batch_tokens,
                alone=Engine(engine.model, beside=True),
                ahead_tokens=AHEAD_PASSES * engine.batch_tokens,
                patience=patience,
                walltime=end,
                meter=meter,
                on_progress=on_progress,
                between_calls=gc.collect,
            )
            with on_signals(lambda number: heart.draining.ask(f"{number.name}{end}")), heart, _collecting_seldom():
                progress = worker.run(Until(once, until_idle, idle_seconds))
            if end.near and heart.holds_any and not progress.shards_done:
                raise _too_short("ended a single shard")
            places.close()
            return progress
        finally:
            places.__exit__(*sys.exc_info())
            with on_signals(lambda number: None), suppress(UnavailableError):
                queue.stop_worker(worker_id)
            log.info("worker.stopped")
            structlog.contextvars.unbind_contextvars("worker", "model")


def _queue(settings: Settings) -> Queue | HttpWorkerQueue:
    """The queue in the database, or the one behind the server, that the settings name."""
    if settings.url:
        return HttpWorkerQueue(Line(settings.url, settings.access_token(), settings.lease_seconds))
    return Queue.open(settings.database)


def _registered(queue: WorkerQueue, model: str, patience: Patience) -> int:
    key = uuid4().hex
    pilot = os.environ.get(PILOT)
    return patience.ask(lambda: queue.register_worker(model, host(os.environ), os.getpid(), pilot, key))


def _ready(
    settings: Settings,
    record: ModelRecord,
    device: str,
    load: Callable[[ModelInfo, str], LoadedModel],
    places: ExitStack,
) -> tuple[Engine, OpenJobs]:
    started = perf_counter()
    info = ModelInfo.read(Path(record.path))
    ranks = settings.ranks(record.name)
    model = load(info, device) if ranks is None else places.enter_context(split_model(info, ranks))
    layout = str(model.layout)
    runtime = Runtime(host(os.environ), model.device_name, layout)
    log.info("model.loaded", seconds=round(perf_counter() - started, 2), device=runtime.device, layout=layout)
    return Engine(model, settings.max_batch_tokens), OpenJobs(record, info.tokenizer, runtime, settings.blobs)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Meanwhile full collections are left to the worker, which does them when no pass waits, and the model to none.

    Of the 10,000s of tasks that are on their way each would take a third of a second, and the GPU would wait.
    """
    often = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(often[0], often[1], 1_000_000)
    try:
        yield
    finally:
        gc.set_threshold(*often)
        gc.unfreeze()


def host(environment: Mapping[str, str]) -> str:
    """The node as Slurm calls it; several of its nodes may be one machine."""
    return environment.get("SLURMD_NODENAME") or socket.gethostname()


def _reading(model: LoadedModel, busy: Busy, gauge: Gauge) -> DeviceReading:
    """What the device says; one that does not know how busy it is, is as busy as the engine."""
    used = device_usage(cuda=model.device.type == "cuda")
    lately = busy.lately()
    utilization = lately if used.utilization is None else used.utilization
    return DeviceReading(used.name, used.memory_used, used.memory_total, utilization, gauge.news())


class _Left(SystemExit):
    """A signal came while the model was loaded; an exit, since whoever loads lets nothing else through."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(0)
        self.number = number


def _leave(number: signal.Signals) -> None:
    raise _Left(number)


def _left_early(left: _Left, end: Walltime) -> Progress:
    if end.near:
        raise _too_short("loaded its model")
    return Progress(ended=f"{left.number.name} while it loaded its model{end}")


def _too_short(missed: str) -> TimedOutError:
    return TimedOutError(
        f"the walltime ended before the worker had {missed}", hint="pilots get more from cluster.longest_walltime"
    )
