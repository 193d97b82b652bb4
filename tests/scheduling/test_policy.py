"""The order of waiting work: tiers, shares, age, and what fills a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.scheduling import Candidate, Choice, choose, decayed, fair_share, ordered
from ndif_batch.scheduling.policy import AGE_SECONDS

USERS = ("ada", "bob", "cyd", "dan")
amounts = st.floats(0, 1e9)
usages = st.dictionaries(st.sampled_from(USERS), amounts)
some_shares = st.dictionaries(st.sampled_from(USERS), st.floats(0, 1e3))


@st.composite
def queues(draw: st.DrawFn, *, alone: bool = True, least: int = 0) -> list[Candidate]:
    return [
        Candidate(
            job_id=number,
            user=draw(st.sampled_from(USERS)),
            tokens=draw(st.integers(1, 3000)),
            shards=draw(st.integers(1, 20)),
            priority=draw(st.integers(-2, 2)),
            age_seconds=draw(st.floats(0, 1e7)),
            mode=draw(st.sampled_from("xy")),
            alone=alone and draw(st.booleans()),
        )
        for number in range(draw(st.integers(least, 12)))
    ]


def serve(
    waiting: Mapping[str, Sequence[int]], shares: Mapping[str, float], rounds: int, seconds: float = 10.0
) -> dict[str, float]:
    """GPU-seconds that each user got, of ``rounds`` shards; ``waiting`` are each user's tokens a shard, job by job."""
    usage = dict.fromkeys(waiting, 0.0)
    served = dict.fromkeys(waiting, 0.0)
    for turn in range(rounds):
        now = turn * seconds
        candidates = [
            Candidate(job_id=1000 * place + job, user=user, tokens=tokens, age_seconds=now - served[user])
            for place, user in enumerate(waiting)
            for job, tokens in enumerate(waiting[user])
        ]
        head = choose(candidates, usage, shares, 1)[0].candidate
        served[head.user] = now
        usage[head.user] += seconds * head.tokens
    return usage


@given(queues(), usages, some_shares, st.integers(0, 10_000))
def test_whatever_waits_keeps_an_idle_worker_busy(
    queue: list[Candidate], usage: dict[str, float], shares: dict[str, float], budget: int
) -> None:
    assert bool(choose(queue, usage, shares, budget)) == bool(queue)


@given(queues(), usages, some_shares, st.integers(0, 10_000))
def test_no_shard_that_could_join_is_left_out(
    queue: list[Candidate], usage: dict[str, float], shares: dict[str, float], budget: int
) -> None:
    chosen = choose(queue, usage, shares, budget)
    if not chosen or chosen[0].candidate.alone:
        return
    head = chosen[0].candidate
    taken = {choice.candidate: choice.shards for choice in chosen}
    room = max(budget, head.tokens) - sum(count * one.tokens for one, count in taken.items())
    assert room >= 0
    for one in queue:
        if one.mode == head.mode and not one.alone and taken.get(one, 0) < one.shards:
            assert one.tokens > room


@given(queues(), usages, some_shares, st.integers(0, 10_000), st.integers(1, 10))
def test_a_batch_holds_what_fits_in_the_order_of_the_queue(
    queue: list[Candidate], usage: dict[str, float], shares: dict[str, float], budget: int, slots: int
) -> None:
    chosen = choose(queue, usage, shares, budget, max_shards=slots)
    order = ordered(queue, usage, shares)
    places = [order.index(choice.candidate) for choice in chosen]
    assert places == sorted(set(places))
    assert places[:1] == [0][: len(chosen)]
    assert sum(choice.shards for choice in chosen) <= slots
    assert all(1 <= choice.shards <= choice.candidate.shards for choice in chosen)
    assert len({choice.candidate.mode for choice in chosen}) <= 1


@given(st.randoms(use_true_random=False), queues(), usages, some_shares, st.integers(0, 10_000))
def test_the_order_of_the_rows_does_not_matter(
    random: Random, queue: list[Candidate], usage: dict[str, float], shares: dict[str, float], budget: int
) -> None:
    mixed = list(queue)
    random.shuffle(mixed)
    assert choose(mixed, usage, shares, budget) == choose(queue, usage, shares, budget)


@given(queues(least=1), usages, some_shares, st.integers(0, 10_000), st.data())
def test_a_higher_priority_never_makes_a_job_later(
    queue: list[Candidate], usage: dict[str, float], shares: dict[str, float], budget: int, data: st.DataObject
) -> None:
    one = data.draw(st.sampled_from(queue))
    raised = replace(one, priority=one.priority + data.draw(st.integers(1, 5)))
    after = [raised if candidate is one else candidate for candidate in queue]
    assert ordered(after, usage, shares).index(raised) <= ordered(queue, usage, shares).index(one)
    before, now = choose(queue, usage, shares, budget), choose(after, usage, shares, budget)
    if before[0].candidate.mode == now[0].candidate.mode and not now[0].candidate.alone:
        assert _shards(now, raised) >= _shards(before, one)


def _shards(choices: Sequence[Choice], one: Candidate) -> int:
    return sum(choice.shards for choice in choices if choice.candidate == one)


@given(queues(), usages, some_shares)
def test_a_tier_goes_before_every_lower_one(
    queue: list[Candidate], usage: dict[str, float], shares: dict[str, float]
) -> None:
    tiers = [one.priority for one in ordered(queue, usage, shares)]
    assert tiers == sorted(tiers, reverse=True)


@given(st.floats(0, 1e6), st.integers(1, 10), st.integers(1, 500))
def test_a_user_alone_gets_everything(used: float, shards: int, tokens: int) -> None:
    one = Candidate(job_id=1, user="ada", tokens=tokens, shards=shards)
    assert choose([one], {"ada": used, "bob": 0.0}, {"ada": 0.001, "bob": 99.0}, 10_000) == [Choice(one, shards)]


@given(st.dictionaries(st.sampled_from(USERS), st.integers(1, 9), min_size=2), st.data())
def test_shares_are_honoured_within_five_percent(parts: dict[str, int], data: st.DataObject) -> None:
    tokens = st.lists(st.integers(1, 4), min_size=1, max_size=3)
    waiting = {user: data.draw(tokens) for user in parts}
    usage = serve(waiting, parts, rounds=1500)
    for user, part in parts.items():
        assert usage[user] / sum(usage.values()) == pytest.approx(part / sum(parts.values()), rel=0.05)


def test_many_jobs_bring_no_more_than_one() -> None:
    usage = serve({"ada": [1] * 50, "bob": [1]}, {}, rounds=400)
    assert usage["ada"] == pytest.approx(usage["bob"], rel=0.05)


def test_a_job_is_served_though_new_users_with_no_usage_come_for_ever() -> None:
    usage, old = {"old": 1e6}, 0
    for turn in range(1000):
        now = turn * AGE_SECONDS / 500
        queue = [
            Candidate(job_id=0, user="old", tokens=1, age_seconds=now),
            Candidate(job_id=turn + 1, user=f"new {turn}", tokens=1),
        ]
        old += choose(queue, usage, {}, 1)[0].candidate.user == "old"
    assert old > 400


@given(queues(alone=False, least=1), usages, some_shares, st.data())
def test_within_a_tier_nobody_starves(
    queue: list[Candidate], usage: dict[str, float], shares: dict[str, float], data: st.DataObject
) -> None:
    tier = [replace(one, priority=0) for one in queue]
    one = data.draw(st.sampled_from(tier))
    aged = replace(one, age_seconds=max(other.age_seconds for other in tier) + 1.01 * AGE_SECONDS)
    assert ordered([aged if other is one else other for other in tier], usage, shares)[0] == aged


def test_what_must_run_alone_waits_for_a_worker_that_holds_nothing() -> None:
    suspect = Candidate(job_id=1, user="ada", tokens=5, shards=3, age_seconds=9.0, alone=True)
    other = Candidate(job_id=2, user="bob", tokens=5)
    assert choose([suspect, other], {}, {}, 100) == [Choice(suspect, 1)]
    assert choose([suspect, other], {}, {}, 100, holding=True) == []
    assert choose([replace(suspect, age_seconds=0.0), replace(other, age_seconds=9.0)], {}, {}, 100) == [
        Choice(replace(other, age_seconds=9.0), 1)
    ]


def test_a_shard_without_tokens_is_leased_too() -> None:
    one = Candidate(job_id=1, user="ada", tokens=0, shards=3)
    assert choose([one], {}, {}, 0) == [Choice(one, 1)]


def test_a_shard_beyond_the_budget_is_leased_by_itself() -> None:
    big, small = Candidate(job_id=1, user="ada", tokens=50, shards=4), Candidate(job_id=2, user="ada", tokens=1)
    assert choose([big, small], {}, {}, 10) == [Choice(big, 1)]


def test_fair_share_is_one_unserved_and_a_half_at_ones_part() -> None:
    assert fair_share({}, {"ada": 1, "bob": 3}) == {"ada": 1.0, "bob": 1.0}
    assert fair_share({"ada": 10, "bob": 30}, {"ada": 1, "bob": 3}) == {"ada": 0.5, "bob": 0.5}
    assert fair_share({"ada": 40}, {"ada": 1, "bob": 3}) == {"ada": 0.2, "bob": 1.0}
    assert fair_share({"ada": 1}, {"ada": 0.0}) == {"ada": 0.0}


@given(usages, some_shares, st.sampled_from(USERS), st.floats(1, 1e9))
def test_use_never_raises_a_users_factor(
    usage: dict[str, float], shares: dict[str, float], user: str, more: float
) -> None:
    before = fair_share({user: 0.0, **usage}, shares)[user]
    after = fair_share(usage | {user: usage.get(user, 0.0) + more}, shares)[user]
    assert after <= before + 1e-12


def test_usage_counts_half_after_a_half_life() -> None:
    assert decayed([(0, 8.0), (24, 8.0), (48, 8.0)], half_life_hours=24) == 14.0
    assert decayed([], half_life_hours=24) == 0.0
