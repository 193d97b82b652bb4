"""The heart renews what is held, tells how far it is, and learns what was taken away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ndif_batch.client import Client
from ndif_batch.errors import UnavailableError
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import FREE, Cost, DeviceReading
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import HeartbeatReply, JobState
from ndif_batch.sweep.task import Task
from ndif_batch.worker.ending import Until
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


class Slow(Queue):
    """A queue whose answers to outcomes come so late that a beat comes before them."""

    beat: Callable[[], None]

    def commit(self, finished: Sequence[Finished]) -> set[int]:
        mine = super().commit(finished)
        self.beat()
        return mine

    def fail(self, shard_id: int, epoch: int, code: str, message: str, retryable: bool, cost: Cost = FREE) -> bool:
        mine = super().fail(shard_id, epoch, code, message, retryable, cost)
        self.beat()
        return mine

    def give_back(self, shard_id: int, epoch: int) -> bool:
        mine = super().give_back(shard_id, epoch)
        self.beat()
        return mine


def test_a_beat_between_an_outcome_and_its_answer_finds_nothing_lost(
    client: Client, logs: list[dict[str, object]]
) -> None:
    good, bad = submit(client), submit(client, seed=1)
    store = bad.record.store
    store.mkdir(parents=True)
    (store / "zarr.json").write_text("someone else's")
    with Slow.open(client.settings.database) as queue, working(client, ToyEngine(), queue=queue) as here:
        assert isinstance(queue, Slow)
        queue.beat = here.heart.beat
        (first, *_) = here.heart.lease(toy.NAME, 1)
        here.worker._committer.give_back(first)
        assert here.run().shards_done == 4
        assert not here.heart.holds_any
    assert (good.refresh().state, bad.refresh().state) == (JobState.COMPLETED, JobState.FAILED)
    told = [str(entry["event"]) for entry in logs]
    assert (told.count("shard.done"), told.count("shard.failed"), told.count("shard.lost")) == (4, 4, 0)


def test_a_shard_that_is_lost_while_its_outcome_is_told_is_lost(client: Client, logs: list[dict[str, object]]) -> None:
    submit(client, tile=(4, 3))

    def cancelled(task: Task) -> None:
        client.queue.lose_worker(here.id, died=False, reason="silent", actor="test")

    with Slow.open(client.settings.database) as queue, working(client, ToyEngine(cancelled), queue=queue) as here:
        assert isinstance(queue, Slow)
        queue.beat = here.heart.beat
        here.run(Until(one=True))
        assert here.heart.holds_any, "the queue has refused it, and no beat was asked whose it is"
        here.heart.beat()
        assert not here.heart.holds_any
    told = [entry["event"] for entry in logs]
    assert [one for one in told if one in ("shard.late", "shard.lost")] == ["shard.late", "shard.lost"]


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
