"""One round of the scheduler: see what became of the pilots, then start and drain as the policy says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from secrets import token_hex

import structlog

from ndif_batch import launcher
from ndif_batch.config import Settings
from ndif_batch.errors import UnavailableError, UsageError
from ndif_batch.launcher import Launcher, Observed, PilotRequest
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.records import WorkerRecord
from ndif_batch.queue.wishes import paused, pinned, wanted_now
from ndif_batch.scheduler import views
from ndif_batch.scheduler.deletion import delete_given_up, expire
from ndif_batch.scheduler.janitor import Janitor
from ndif_batch.scheduler.orders import drain
from ndif_batch.scheduler.reconcile import Change, Waits, reconcile
from ndif_batch.scheduling.cluster import Start
from ndif_batch.scheduling.pilots import pilots_wanted
from ndif_batch.worker.walltime import PILOT, WALLTIME

log: structlog.stdlib.BoundLogger = structlog.get_logger()

LEADER = ACTOR = "scheduler"
LEADS_SECONDS = 30.0
"""How long a leader may be silent before another one takes over."""

LIVING = (launcher.PilotState.QUEUED, launcher.PilotState.RUNNING)

BUSY_BEATS = 5
"""A worker that told of no work for so many beats is idle."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a round did: ``leads`` is False if another scheduler does the work. Names of pilots."""

    leads: bool = True
    started: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()


@dataclass(slots=True)
class Scheduler:
    """Keeps the pilots of one ``launcher`` as many as the queue's work is worth, if it leads."""

    queue: Queue
    launcher: Launcher
    settings: Settings
    holder: str
    token: Callable[[], str] = lambda: token_hex(4)
    janitor: Janitor = field(default_factory=Janitor)

    def tick(self) -> Ticked:
        """One round. Raises ``UnavailableError`` if the queue or the launcher cannot be asked."""
        if not self._leads():
            return Ticked(leads=False)
        self.queue.settle_dependencies()
        expire(self.queue, ACTOR)
        delete_given_up(self.queue)
        self.janitor.tidy(self.queue)
        observed = self.launcher.observe()
        ended = self._reconcile(observed)
        cluster, busy = self.settings.cluster, BUSY_BEATS * self.settings.heartbeat_seconds
        waiting = self.queue.backlog()
        settings = self.queue.settings()
        minimum = views.minimums(cluster, settings)
        recent = self.queue.newest_pilots(sorted({*waiting, *minimum}), views.RECENT_ENDS)
        pilots = [pilot for pilot in recent if not pilot.state.final]
        workers = self._workers(recent)
        now = self.queue.now()
        seen = [views.view(pilot, workers.get(pilot.worker_id or 0), now, busy) for pilot in pilots]
        loaded = views.ready(pilots, workers).intersection(wanted_now(settings))
        self.queue.loaded(sorted(loaded), actor=ACTOR)
        backlog = views.backlogs(waiting, cluster, views.in_vain(recent, workers), minimum)
        frozen = {
            *(model for model in backlog if paused(settings, model)),
            *views.backing_off(recent, workers, cluster, now),
        }
        shares = {user.name: user.shares for user in self.queue.users()}
        decisions = pilots_wanted(
            views.capped(backlog, frozen, seen), seen, views.limits(cluster), now.timestamp(), shares
        )
        stays = {*pinned(settings), *(model for model, own in cluster.models.items() if own.minimum)}
        drained = [pilot for pilot in pilots if pilot.name in decisions.drain]
        for pilot in drained:
            drain(self.queue, self.launcher, pilot, actor=ACTOR, reason="not needed")
        started = [name for start in decisions.start for name in self._start(start, start.model in stays)]
        return Ticked(True, tuple(started), tuple(pilot.name for pilot in drained), tuple(ended))

    def resign(self) -> None:
        """Let another scheduler lead at once."""
        self.queue.acquire_leader(LEADER, self.holder, 0)

    def _leads(self) -> bool:
        return self.queue.acquire_leader(
            LEADER, self.holder, max(LEADS_SECONDS, 3 * self.settings.cluster.tick_seconds)
        )

    def _reconcile(self, observed: Mapping[str, Observed]) -> list[str]:
        cluster, silent = self.settings.cluster, timedelta(seconds=self.settings.lease_seconds)
        pending, draining = timedelta(seconds=cluster.pending_seconds), timedelta(seconds=cluster.drain_seconds)
        waits = Waits(pending=pending, silent=silent, drain=draining)
        pilots = self.queue.pilots()
        changes = reconcile(pilots, self._workers(pilots), observed, self.queue.now(), waits)
        for change in changes:
            self._carry_out(change)
        self._end_strays(observed, {pilot.name for pilot in pilots})
        return [change.pilot.name for change in changes if change.state.final]

    def _carry_out(self, change: Change) -> None:
        pilot = change.pilot
        if change.cancel:
            self.launcher.cancel(pilot.name)
        self.queue.update_pilot(
            pilot.id, pilot.state, change.state, external_id=change.external_id, reason=change.reason, actor=ACTOR
        )
        if change.worker is not None:
            reason = f"pilot {pilot.name}: {change.reason}"
            self.queue.lose_worker(change.worker, died=change.died, reason=reason, actor=ACTOR)
        if change.state is not pilot.state:
            log.info("pilot.changed", pilot=pilot.name, was=pilot.state, now=change.state, reason=change.reason)

    def _end_strays(self, observed: Mapping[str, Observed], known: set[str]) -> None:
        """End pilots that the table has given up and the launcher still has."""
        strangers = {name for name, one in observed.items() if one.state in LIVING} - known
        for pilot in self.queue.pilots_named(strangers):
            if pilot.state.final:
                log.warning("pilot.stray", pilot=pilot.name)
                self.launcher.cancel(pilot.name)

    def _workers(self, pilots: Iterable[PilotRecord]) -> dict[int, WorkerRecord]:
        """The workers inside them, by id."""
        ids = {pilot.worker_id for pilot in pilots if pilot.worker_id is not None}
        return {worker.id: worker for worker in self.queue.workers(ids)}

    def _start(self, start: Start, stays: bool) -> list[str]:
        started = []
        for _ in range(start.count):
            if not self._leads():
                break
            name = self._start_one(start, stays)
            if name is None:
                break
            started.append(name)
        return started

    def _start_one(self, start: Start, stays: bool) -> str | None:
        """The name of a pilot that was started, which ``stays`` without work; None if the launcher refuses now."""
        name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', start.model)[:48].strip('.-_') or 'model'}-{self.token()}"
        cluster = self.settings.cluster
        resources = {"timeout_min": int(start.walltime_seconds // 60), **views.resources(cluster, start.model)}
        pilot = self.queue.add_pilot(name, start.model, cluster.launcher, resources, actor=ACTOR)
        try:
            external_id = self.launcher.start(self._request(pilot, stays))
        except (UsageError, UnavailableError) as error:
            log.error("pilot.refused", pilot=name, reason=error.message)
            self._move(pilot, PilotState.FAILED, error.message)
            return None
        log.info("pilot.started", pilot=name, model=start.model, external_id=external_id, **resources)
        self._move(pilot, PilotState.QUEUED, None, external_id)
        return name

    def _move(self, pilot: PilotRecord, state: PilotState, reason: str | None, external_id: str | None = None) -> None:
        self.queue.update_pilot(
            pilot.id, PilotState.REQUESTED, state, external_id=external_id, reason=reason, actor=ACTOR
        )

    def _request(self, pilot: PilotRecord, stays: bool) -> PilotRequest:
        own_variables = {PILOT: pilot.name, WALLTIME: str(60 * pilot.resources["timeout_min"])}
        return PilotRequest(
            pilot.name,
            pilot.model,
            resources=pilot.resources,
            environment=self.settings.environment() | own_variables,
            idle_seconds=None if stays else 2 * self.settings.cluster.idle_seconds,
        )
