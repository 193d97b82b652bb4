"""A cluster that does what a test says, and a scheduler of it whose clock stands still."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from ndif_batch.client import Client
from ndif_batch.config import ClusterSettings, Settings
from ndif_batch.errors import NdifBatchError
from ndif_batch.launcher import Observed, PilotRequest, PilotState
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import PilotRecord
from ndif_batch.queue.records import Lease
from ndif_batch.scheduler.tick import Scheduler, Ticked
from tests import toy


@dataclass
class SmallCluster:
    """A launcher whose pilots wait until a test lets them run or end. ``asked`` is all that it was told to do."""

    pilots: dict[str, Observed] = field(default_factory=dict)
    requests: dict[str, PilotRequest] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refusal: NdifBatchError | None = None
    crash: BaseException | None = None
    looks: int = 0

    def start(self, request: PilotRequest) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.requests[request.name] = request
        external_id = str(len(self.requests))
        self.pilots[request.name] = Observed(PilotState.QUEUED, external_id, "Priority")
        if self.crash is not None:
            raise self.crash
        return external_id

    def observe(self) -> Mapping[str, Observed]:
        self.looks += 1
        return dict(self.pilots)

    def cancel(self, name: str) -> None:
        self.asked.append(("cancel", name))
        self.end(name, "CANCELLED")

    def drain(self, name: str) -> None:
        self.asked.append(("drain", name))

    def see(self, name: str, reason: str) -> None:
        self.pilots[name] = replace(self.pilots[name], state=PilotState.QUEUED, reason=reason)

    def run(self, name: str) -> None:
        self.pilots[name] = replace(self.pilots[name], state=PilotState.RUNNING, reason="", node="n0")

    def end(self, name: str, reason: str) -> None:
        if name in self.pilots:
            self.pilots[name] = replace(self.pilots[name], state=PilotState.ENDED, reason=reason)


class Room:
    """One queue, one cluster, and as many schedulers as a test makes; ``wait`` moves the time of all."""

    def __init__(self, client: Client, **cluster: Any) -> None:
        self.now = datetime.now(UTC)
        self.client = client
        self.cluster = SmallCluster()
        self.settings = settings(client.settings, **cluster)
        self.queue = Queue.open(client.settings.database, lambda: self.now)
        self.scheduler = self.another("first")

    def another(self, holder: str) -> Scheduler:
        numbers = count(1)
        return Scheduler(self.queue, self.cluster, self.settings, holder, lambda: f"{holder}{next(numbers)}")

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def tick(self) -> Ticked:
        return self.scheduler.tick()

    def pilot(self, name: str) -> PilotRecord:
        return next(pilot for pilot in self.queue.pilots(active=False) if pilot.name == name)

    def running(self) -> tuple[str, int]:
        """A pilot that has loaded its model, and its worker."""
        (name,) = self.tick().started
        self.cluster.run(name)
        worker_id = self.queue.register_worker(toy.NAME, "n0", 1, name)
        return name, worker_id

    def lease(self, worker_id: int, max_tokens: int = 9) -> list[Lease]:
        return self.queue.lease(worker_id, toy.NAME, max_tokens, 60.0)


def settings(base: Settings, **cluster: Any) -> Settings:
    return base.model_copy(update={"cluster": ClusterSettings(**cluster)})


Make = Callable[..., Room]
