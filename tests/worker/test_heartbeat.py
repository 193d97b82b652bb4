"""The heart renews what is held, tells how far it is, and learns what was taken away."""

from __future__ import annotations

from collections.abc import Mapping

from ndif_batch.client import Client
from ndif_batch.errors import UnavailableError
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import DeviceReading
from ndif_batch.queue.records import HeartbeatReply
from ndif_batch.worker.heartbeat import Heartbeat
from tests import toy
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working


def test_a_beat_tells_the_progress_of_every_held_shard(client: Client) -> None:
    job = submit(client)
    with working(client, ToyEngine()) as here:
        first, *_ = here.heart.lease(toy.NAME, 10**6)
        here.heart.progress(first.shard.id, 2)
        here.heart.beat()
        assert job.refresh().record.tasks_done == 2


def test_a_shard_that_was_taken_is_no_longer_held(client: Client) -> None:
    job = submit(client)
    with working(client, ToyEngine()) as here:
        leases = here.heart.lease(toy.NAME, 10**6)
        here.heart.release(leases[0].shard.id)
        job.cancel()
        here.heart.beat()
        assert not any(here.heart.holds(lease.shard.id) for lease in leases)
        here.heart.progress(leases[1].shard.id, 3)
        assert not here.heart.holds(leases[1].shard.id)


class Interrupted(Queue):
    """A queue that cannot be reached at the first beat, breaks at the second, and asks to drain at the third."""

    beats = 0

    def heartbeat(
        self,
        worker_id: int,
        lease_seconds: float,
        progress: Mapping[int, int],
        device: DeviceReading | None = None,
    ) -> HeartbeatReply:
        self.beats += 1
        if self.beats == 1:
            raise UnavailableError("the database is away")
        if self.beats == 2:
            raise ValueError("broken")
        return HeartbeatReply(drain=True)


def test_the_heart_goes_on_beating_through_an_outage(client: Client, logs: list[dict[str, object]]) -> None:
    queue = Interrupted.open(client.settings.database)
    with queue, Heartbeat(queue, 1, lease_seconds=30, every_seconds=0.01) as heart:
        assert heart.draining.wait(30)
    assert heart.draining.reason == "the queue asked it to"
    assert [entry["event"] for entry in logs] == ["heartbeat.missed", "heartbeat.failed"]


def test_a_beat_tells_how_full_and_how_busy_the_device_is(client: Client) -> None:
    queue = client.queue
    worker_id = queue.register_worker(toy.NAME, "here", 1)
    reading = DeviceReading("H100", 3 * 2**30, 80 * 2**30, 0.5)
    Heartbeat(queue, worker_id, lease_seconds=30, every_seconds=60, device=lambda: reading).beat()
    (worker,) = queue.workers()
    assert (worker.device, worker.memory_used, worker.memory_total, worker.utilization) == (
        "H100",
        3 * 2**30,
        80 * 2**30,
        0.5,
    )
