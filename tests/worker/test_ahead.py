"""While a round runs the next is leased and opened: the engine does not wait, and nobody else's work is held."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Event, current_thread
from typing import Any

import pytest

from ndif_batch.client import Client, JobHandle
from ndif_batch.errors import UnavailableError
from ndif_batch.queue import Queue
from ndif_batch.queue.cluster import Quotas
from ndif_batch.queue.protocol import MAX_SHARDS
from ndif_batch.queue.records import JobState, Lease, ShardRecord, ShardState
from ndif_batch.sweep.task import Task
from ndif_batch.worker.ahead import Ahead
from ndif_batch.worker.busy import Busy
from ndif_batch.worker.ending import Until
from ndif_batch.worker.meter import Meter
from ndif_batch.worker.walltime import Walltime
from tests.waiting import until
from tests.worker.toy_engine import ToyCounters, ToyEngine, ToyOutcome
from tests.worker.working import assert_right, submit, working

SHARD = 3 * 3
"""Tokens of one shard of the jobs here."""


def in_state(client: Client, job: JobHandle, state: ShardState) -> list[ShardRecord]:
    return [shard for shard in client.queue.shards(job.id) if shard.state is state]


def leased(client: Client, job: JobHandle) -> int:
    return len(in_state(client, job, ShardState.LEASED))


def at_first(action: Callable[[], None]) -> tuple[ToyEngine, Callable[[Task], None]]:
    """An engine that acts before the first of its tasks."""

    def before(task: Task) -> None:
        if len(engine.calls) == 1 and task is engine.calls[0][-1]:
            action()

    engine = ToyEngine(before)
    return engine, before


def assert_untroubled(client: Client, job: JobHandle) -> None:
    """No call failed: what an action of the engine's asserts makes its call fail."""
    assert_right(job)
    assert {(one.attempts, one.deaths) for one in client.queue.shards(job.id)} == {(0, 0)}


def test_the_next_round_is_leased_while_the_engine_runs_this_one_and_no_third(client: Client) -> None:
    job = submit(client)
    engine, _ = at_first(lambda: until(lambda: leased(client, job) == 2, "the next round"))
    with working(client, engine, max_tokens=SHARD) as here:
        here.run()
    assert [len(call) for call in engine.calls] == [3] * 4
    assert_untroubled(client, job)


def test_the_next_round_is_leased_when_so_many_tokens_are_left(client: Client) -> None:
    job = submit(client)
    seen: list[int] = []

    def before(task: Task) -> None:
        if len(engine.calls) == 1 and task.id == 0:
            until(lambda: not in_state(client, job, ShardState.PENDING), "the next round")
        elif len(engine.calls) == 1:
            seen.append(len(in_state(client, job, ShardState.PENDING)))

    engine = ToyEngine(before)
    with working(client, engine, max_tokens=2 * SHARD, ahead_tokens=3) as here:
        here.run()
    assert seen == [2] * 5
    assert_untroubled(client, job)


class Streaming(ToyEngine):
    """Takes a task when the one before it is done."""

    def run(
        self, tasks: Iterable[Task], *, nan: str, layout: str, constants: Mapping[str, Any]
    ) -> Iterator[ToyOutcome]:
        self.calls.append([])
        self.options.append((nan, layout))
        for index, task in enumerate(tasks):
            self.calls[-1].append(task)
            yield self._outcome(index, task)


def test_an_engine_goes_on_with_the_rounds_that_are_there_in_time(client: Client) -> None:
    job = submit(client)

    def before(task: Task) -> None:
        if task.id % 3 == 2 and task.id < 9:
            until(lambda: here.worker._ahead.ready, "the next round")

    engine = Streaming(before)
    with working(client, engine, max_tokens=SHARD) as here:
        here.run()
    assert [[task.id for task in call] for call in engine.calls] == [list(range(12))]
    assert_untroubled(client, job)


def test_a_call_ends_after_so_many_rounds_and_the_next_goes_on(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(client)
    monkeypatch.setattr("ndif_batch.worker.call.ROUNDS", 3)

    def before(task: Task) -> None:
        if task.id % 3 == 2 and task.id < 9:
            until(lambda: here.worker._ahead.ready, "the next round")

    engine = Streaming(before)
    with working(client, engine, max_tokens=SHARD) as here:
        here.run()
    assert [len(call) for call in engine.calls] == [9, 3]
    assert_untroubled(client, job)


def test_jobs_that_may_not_share_have_calls_of_their_own_between_those_of_others(client: Client) -> None:
    jobs = [
        submit(client, tile=(4, 3), layout=layout, seed=seed) for seed, layout in enumerate(("auto", "solo", "auto"))
    ]

    def before(task: Task) -> None:
        if task.id == 0 and len(engine.calls) < len(jobs):
            until(lambda: here.worker._ahead.ready, "the next round")

    engine = Streaming(before)
    with working(client, engine, max_tokens=4 * SHARD) as here:
        here.run()
    assert [(layout, len(call)) for (_, layout), call in zip(engine.options, engine.calls, strict=True)] == [
        ("auto", 12),
        ("solo", 12),
        ("auto", 12),
    ]
    for job in jobs:
        assert_untroubled(client, job)


class Counting(Queue):
    """Counts the calls for shards, by the thread that makes them; ``away`` refuses them to one thread."""

    away = ""
    asked: list[str]

    def lease(
        self,
        worker_id: int,
        model: str,
        max_tokens: int,
        lease_seconds: float,
        max_shards: int = MAX_SHARDS,
        held: Sequence[int] | None = None,
    ) -> list[Lease]:
        name = current_thread().name
        self.asked = [*getattr(self, "asked", []), name]
        if self.away and name.startswith(self.away):
            raise UnavailableError("the database is away")
        return super().lease(worker_id, model, max_tokens, lease_seconds, max_shards, held)


def test_a_round_that_took_all_that_waited_leaves_what_comes_later_to_others(client: Client) -> None:
    job = submit(client)
    others: list[int] = []

    def another() -> None:
        later = submit(client, seed=1)
        with working(client, ToyEngine()) as other:
            other.run(Until(one=True))
        others.append(len(in_state(client, later, ShardState.DONE)))

    engine, _ = at_first(another)
    with Counting.open(client.settings.database) as queue, working(client, engine, queue=queue) as here:
        here.run()
        assert isinstance(queue, Counting)
        assert not [name for name in queue.asked if name.startswith("ahead")]
    assert others == [4]
    assert_untroubled(client, job)


def test_a_queue_that_is_away_is_asked_again_when_the_round_is_over(client: Client) -> None:
    job = submit(client)
    with Counting.open(client.settings.database) as queue:
        assert isinstance(queue, Counting)
        queue.away = "ahead"
        with working(client, ToyEngine(), queue=queue, max_tokens=SHARD) as here:
            here.run()
        assert any(name.startswith("ahead") for name in queue.asked)
    assert_untroubled(client, job)


def test_a_drain_gives_both_rounds_back(client: Client) -> None:
    job = submit(client)
    now = 0.0

    def drain() -> None:
        nonlocal now
        until(lambda: leased(client, job) == 2, "the next round")
        here.heart.draining.ask("a test")

    def before(task: Task) -> None:
        nonlocal now
        first(task)
        now += 3.0

    engine, first = at_first(drain)
    engine.before = before
    with working(client, engine, max_tokens=SHARD, clock=lambda: now) as here:
        assert here.run().shards_done == 0
    assert len(engine.calls) == 1
    assert {(one.state, one.attempts, one.deaths) for one in client.queue.shards(job.id)} == {
        (ShardState.PENDING, 0, 0)
    }
    with working(client, ToyEngine()) as other:
        other.run()
    assert_untroubled(client, job)


def test_a_beat_renews_what_was_leased_ahead(client: Client) -> None:
    job = submit(client)

    def beat() -> None:
        until(lambda: leased(client, job) == 2, "the next round")
        held = in_state(client, job, ShardState.LEASED)
        until(lambda: all(here.heart.holds(one.id) for one in held), "the answer")
        before = [one.lease_until for one in in_state(client, job, ShardState.LEASED)]
        here.heart.beat()
        after = [one.lease_until for one in in_state(client, job, ShardState.LEASED)]
        assert all(old is not None and new is not None and new > old for old, new in zip(before, after, strict=True))

    engine, _ = at_first(beat)
    with working(client, engine, max_tokens=SHARD) as here:
        here.run()
    assert_untroubled(client, job)


def test_what_is_cancelled_before_its_turn_is_not_run(client: Client) -> None:
    first, second = submit(client, tile=(4, 3)), submit(client, tile=(4, 3), seed=1)

    def cancel() -> None:
        until(lambda: leased(client, second) == 1, "the next round")
        held = in_state(client, second, ShardState.LEASED)
        until(lambda: all(here.heart.holds(one.id) for one in held), "the answer")
        second.cancel()
        here.heart.beat()

    engine, _ = at_first(cancel)
    with working(client, engine, max_tokens=4 * SHARD) as here:
        assert here.run().shards_done == 1
    assert [len(call) for call in engine.calls] == [12]
    assert second.refresh().state is JobState.CANCELLED
    assert_untroubled(client, first)


def test_what_is_leased_ahead_counts_against_the_quota_of_its_user(client: Client) -> None:
    job = submit(client)
    client.queue.set_quotas("ada", Quotas(running_shards=1), actor="test")
    most: list[int] = []

    def before(task: Task) -> None:
        most.append(leased(client, job))

    with working(client, ToyEngine(before), max_tokens=SHARD) as here:
        here.run()
    assert max(most) == 1
    assert_untroubled(client, job)


def test_a_disk_that_refuses_what_is_opened_ahead_ends_the_worker_and_loses_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = submit(client, tile=(4, 3)), submit(client, tile=(4, 3), seed=1)
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if current_thread().name.startswith("ahead"):
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch, working(client, ToyEngine(), max_tokens=4 * SHARD) as here:
        patch.setattr("os.fsync", refusing)
        with pytest.raises(UnavailableError, match="No space left on device"):
            here.run()
    with working(client, ToyEngine()) as other:
        other.run()
    assert_untroubled(client, first)
    assert_right(second)


def test_what_is_leased_ahead_ends_in_time_after_what_runs() -> None:
    end = Walltime(120.0, lambda: 0.0, 20.0)
    assert end.tokens(5.0, 1000, running=200) == 300
    assert end.tokens(5.0, 100, running=200) == 100
    assert end.tokens(5.0, 1000, running=600) == 0


def test_one_thing_is_fetched_at_a_time() -> None:
    go, fetched = Event(), []

    def fetch(number: int) -> int:
        assert go.wait(30)
        fetched.append(number)
        return number

    with Ahead[int]() as ahead:
        assert ahead.take() is None
        for number in range(3):
            ahead.begin(lambda number=number: fetch(number))  # type: ignore[misc]
        go.set()
        assert (ahead.take(), ahead.take()) == (0, None)
    assert fetched == [0]


def test_the_share_leaves_out_the_time_without_work_and_counts_the_call_that_runs() -> None:
    now = 0.0
    counters = ToyCounters()
    meter = Meter(counters, clock=lambda: now)
    busy = Busy(meter)
    assert busy.share is None

    def outcomes() -> object:
        nonlocal now
        now += 6
        counters.busy_seconds += 6
        looks.append(busy.lately())
        yield 0

    looks: list[float | None] = []
    for _ in meter.call(outcomes()):  # type: ignore[arg-type]
        now += 2
    with busy.waiting():
        now += 100
    assert busy.share == pytest.approx(0.75)
    assert looks == [1.0]
    assert busy.lately() == 0.0


class Slow(Queue):
    """A queue that takes ``LEASE`` seconds to give shards."""

    def lease(
        self,
        worker_id: int,
        model: str,
        max_tokens: int,
        lease_seconds: float,
        max_shards: int = MAX_SHARDS,
        held: Sequence[int] | None = None,
    ) -> list[Lease]:
        Event().wait(LEASE)
        return super().lease(worker_id, model, max_tokens, lease_seconds, max_shards, held)


PASS = 0.4
LEASE = WRITE = 0.15 * PASS


def test_the_engine_is_busy_while_leasing_and_writing_take_a_third_of_a_pass(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(client, repeats=5, tile=(1, 1, 5))

    def a_pass(task: Task) -> None:
        if task is engine.calls[-1][-1]:
            Event().wait(PASS)

    def slow_disk(source: object, target: object) -> None:
        if current_thread().name == "writer":
            Event().wait(WRITE / 3)
        replace(source, target)  # type: ignore[arg-type]

    replace = os.replace
    engine = ToyEngine(a_pass)
    with (
        Slow.open(client.settings.database) as queue,
        working(client, engine, queue=queue, max_tokens=15) as here,
        monkeypatch.context() as patch,
    ):
        patch.setattr("os.replace", slow_disk)
        progress = here.run(Until(idle=True))
    assert len(engine.calls) == 12
    assert progress.busy is not None
    assert progress.busy >= 0.9
    assert_untroubled(client, job)
