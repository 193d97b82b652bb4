"""A scheduler process: ticks until a signal ends it, or once."""

from __future__ import annotations

import os
import socket
from secrets import token_hex
from threading import Event
from time import monotonic

import structlog

from ndif_batch.config import Settings
from ndif_batch.errors import UnavailableError
from ndif_batch.launcher import open_launcher
from ndif_batch.queue import Queue
from ndif_batch.queue.telemetry import Gauge
from ndif_batch.scheduler.tick import Scheduler, Ticked
from ndif_batch.worker.logs import configure_logs
from ndif_batch.worker.signals import on_signals

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def run(settings: Settings, *, once: bool = False) -> Ticked:
    """Tick every ``tick_seconds`` and give the last round; of several schedulers one leads, the others stand by.

    An outage of the queue or the launcher is waited out, unless it is to tick ``once``: then ``UnavailableError``.
    """
    configure_logs()
    stop, ticked = Event(), Ticked(leads=False)
    with Queue.open(settings.database) as queue, on_signals(lambda number: stop.set()):
        launcher = open_launcher(settings.cluster.launcher, settings.pilots, settings.cluster.gpus)
        gauge = Gauge()
        scheduler = Scheduler(queue, launcher, settings, f"{socket.gethostname()} {os.getpid()}")
        source = f"{scheduler.holder} {token_hex(4)}"  # numbers of processes come again, and its sums begin at zero
        structlog.contextvars.bind_contextvars(scheduler=scheduler.holder)
        while not stop.is_set():
            led = ticked.leads
            began = monotonic()
            try:
                ticked = scheduler.tick()
                gauge.observe("tick_seconds", monotonic() - began)
                queue.report(source, gauge.measured)
            except UnavailableError as error:
                if once:
                    raise
                log.warning("tick.failed", reason=error.message)
            if once:
                scheduler.janitor.wait()
                break
            if ticked.leads is not led:
                log.info("scheduler.leads" if ticked.leads else "scheduler.stands_by")
            stop.wait(settings.cluster.tick_seconds)
        if ticked.leads:
            scheduler.resign()
        structlog.contextvars.unbind_contextvars("scheduler")
    return ticked
