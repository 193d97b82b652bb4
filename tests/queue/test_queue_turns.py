"""The database finds whose turn it is by the formula of the policy, and a lease looks no further than it must."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from sqlalchemy import update

from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.store import Queue
from ndif_batch.queue.tables import user, waiting
from ndif_batch.queue.turns import Turns
from ndif_batch.scheduling import Candidate, decayed, ordered
from tests.queue.conftest import HandClock
from tests.queue.queue_samples import MODEL, SECONDS, job_spec, new_worker, take

PACE, HALF_LIFE = 0.01, 24.0


@pytest.mark.parametrize("seed", range(3))
def test_users_come_in_the_order_of_the_policy(queue: Queue, clock: HandClock, seed: int) -> None:
    draw = random.Random(seed)
    queue.set_settings({"half_life_hours": HALF_LIFE}, actor="root")
    candidates, usage, shares = [], {}, {}
    for number in range(30):
        name = f"user{number:02}"
        job = queue.submit(job_spec(shards=1, user=name, priority=draw.choice([0, 0, 1])))
        clock.forward(draw.choice([0, 3600]))
        hours, used, leased = draw.uniform(0, 100), draw.choice([0.0, draw.uniform(0, 1000)]), draw.choice([0, 5000])
        shares[name] = draw.choice([1.0, 2.5])
        usage[name] = used, hours, leased
        candidates.append((name, job.id, job.priority, job.submitted_at, draw.choice([None, draw.uniform(0, 50)])))
    expected, told = [], {}
    with queue._database.write() as tx:
        for name, job_id, priority, submitted, served in candidates:
            used, hours, leased = usage[name]
            served_at = None if served is None else tx.now - timedelta(hours=served)
            row = {"used": used, "used_at": tx.now - timedelta(hours=hours), "served_at": served_at}
            row |= {"leased_tokens": leased, "shares": shares[name]}
            tx.connection.execute(update(user).where(user.c.name == name).values(row))
            told[name] = decayed([(hours, used)], HALF_LIFE) + leased * PACE
            age = (tx.now - max(submitted, served_at or submitted)).total_seconds()
            expected.append(Candidate(job_id=job_id, user=name, tokens=1, priority=priority, age_seconds=age))
        found, whole = Turns().first(tx, MODEL.name, PACE, 100)
        order = ordered(expected, told, shares)
        assert [turn.head for turn in found] == order
        assert {turn.head.user: turn.usage for turn in found} == pytest.approx(told, rel=1e-6)
        assert (whole.usage, whole.shares) == pytest.approx((sum(told.values()), sum(shares.values())), rel=1e-6)
        few, _ = Turns().first(tx, MODEL.name, PACE, 4)
        assert [turn.head for turn in few] == order[:4]
        tx.connection.execute(update(user).values(leased_tokens=0))


def test_a_user_in_backoff_is_passed_over_until_it_ends(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec(shards=1, user="ada", priority=1))
    queue.submit(job_spec(shards=9, user="bob"))
    worker = new_worker(queue)
    (lease,) = take(queue, worker)
    assert queue.fail(lease.shard.id, lease.shard.epoch, "io", "boom", retryable=True)
    with queue._database.read() as tx:
        assert [turn.head.user for turn in Turns().first(tx, MODEL.name, 0.0, 9)[0]] == ["bob"]
    assert [one.job.user for one in take(queue, worker)] == ["bob"]
    clock.forward(5)
    assert [one.job.user for one in take(queue, worker)] == ["ada"]


def test_a_lower_job_of_a_user_who_is_first_waits_for_the_higher_jobs_of_all_others(queue: Queue) -> None:
    for number in range(12):
        queue.submit(job_spec(shards=1, user=f"user{number:02}", priority=2))
        queue.submit(job_spec(shards=1, user=f"user{number:02}", priority=0))
    queue.submit(job_spec(shards=20, user="last", priority=1))
    leases = take(queue, new_worker(queue), 30)
    assert [lease.job.priority for lease in leases] == [2] * 12 + [1] * 18


def test_room_that_the_first_user_cannot_use_is_filled_by_the_next(queue: Queue) -> None:
    queue.submit(job_spec(shards=9, each=10, tokens_per_task=10, user="ada"))
    queue.submit(job_spec(shards=9, each=1, tokens_per_task=10, user="bob"))
    leases = queue.lease(new_worker(queue), MODEL.name, 130, SECONDS)
    assert [lease.job.user for lease in leases] == ["ada", "bob", "bob", "bob"]


def test_what_is_over_leaves_no_trace_in_whose_turn_it_is(queue: Queue) -> None:
    queue.submit(job_spec(shards=3))
    worker = new_worker(queue)
    leases = take(queue, worker, 3)
    with queue._database.read() as tx:
        assert Turns().first(tx, MODEL.name, 0.0, 9)[0] == []
        assert tx.connection.execute(waiting.select()).one().job_id is None
    queue.commit([Finished(lease.shard.id, lease.shard.epoch, cost=Cost(1.0, 50)) for lease in leases])
    assert take(queue, worker) == []
