"""What the engine spends is charged once, to the shards that it was spent on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ndif_batch.client import Client
from ndif_batch.worker.meter import Meter
from tests import toy
from tests.worker.toy_engine import ToyCounters, ToyEngine
from tests.worker.working import submit, working


class Time:
    """A clock and an engine whose passes take what the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.counters = ToyCounters()

    def clock(self) -> float:
        return self.now

    def passes(self, *sizes: int) -> Iterator[int]:
        """Each pass takes two seconds, runs seven tokens, and gives so many outcomes."""
        for size in sizes:
            self.now += 2
            self.counters.tokens += 7
            yield from range(size)


def test_the_seconds_of_a_call_are_shared_by_the_tokens_that_each_shard_would_have_cost() -> None:
    time = Time()
    meter = Meter(time.counters, gpus=2, clock=time.clock)
    outcomes = meter.call(time.passes(4, 2))
    for _ in range(4):
        next(outcomes)
        meter.arrived(5)
    first = meter.take(15)
    assert (first.gpu_seconds, first.tokens, first.shared_tokens) == (3, 15, 10)
    for _ in outcomes:
        meter.arrived(5)
    second = meter.take(15)
    assert (second.gpu_seconds, second.tokens) == (5, 15)
    assert first.shared_tokens + second.shared_tokens == 30 - 14


def test_waiting_for_the_disk_is_not_charged() -> None:
    time = Time()
    meter = Meter(time.counters, clock=time.clock)
    for _ in meter.call(time.passes(1)):
        time.now += 100
        meter.arrived(5)
    assert meter.take(5).gpu_seconds == 2


def test_the_speed_follows_the_latest_calls() -> None:
    time = Time()
    meter = Meter(time.counters, clock=time.clock)
    assert meter.tokens_per_second is None
    for _ in meter.call(time.passes(1)):
        meter.arrived(10)
    assert meter.tokens_per_second == 5
    for _ in range(30):
        for _ in meter.call(time.passes(1)):
            meter.arrived(40)
    assert meter.tokens_per_second == pytest.approx(20)


def test_users_are_charged_for_their_shards(client: Client) -> None:
    submit(client)
    with working(client, ToyEngine()) as here:
        here.run()
        (worker,) = client.queue.workers()
    (usage,) = client.queue.usage_of("ada")
    assert usage.cost.tokens == worker.tokens == 12 * 3
    assert usage.cost.gpu_seconds == pytest.approx(worker.gpu_seconds)
    assert usage.cost.gpu_seconds > 0
    client.queue.register_worker(toy.NAME, "here", 1)
    submit(client, seed=1)
    assert client.queue.backlog()[toy.NAME].tokens_per_second == pytest.approx(36 / worker.gpu_seconds)
