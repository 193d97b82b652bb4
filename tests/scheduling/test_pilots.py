"""Pilots follow the work: never beyond a limit, never without work, back to none, and no pilot comes and goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.scheduling import Backlog, Decisions, Limits, PilotPhase, PilotView, Start, pilots_wanted

MODELS = ("a", "b", "c", "d")
PARTITIONS = ("", "small", "large")
NOW = 100_000.0


def bounds(gpus: int, **changes: Any) -> Limits:
    """Limits whose numbers the tests count with: a piece of 60 seconds, ten minutes of residence."""
    given = {"worth": 2.0, "residence_seconds": 600.0, "shortest_walltime": 900.0} | changes
    return Limits(gpus=gpus, **given)


def backlog(work: float = 0.0, **changes: object) -> Backlog:
    """``work`` seconds for one pilot that does 1,000 tokens a second and loads for 30."""
    one = Backlog(
        tokens={"ada": int(work * 1000)} if work else {},
        shards=1000 if work else 0,
        oldest_seconds=0.0,
        waited_seconds=0.0,
        tokens_per_second=1000.0,
        load_seconds=30.0,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def running(name: str, model: str, *, idle: float | None = None, age: float = 5000.0, gpus: int = 1) -> PilotView:
    return PilotView(
        name=name,
        model=model,
        phase=PilotPhase.RUNNING,
        gpus=gpus,
        started_at=NOW - age,
        idle_since=None if idle is None else NOW - idle,
        ends_at=NOW + 3600,
    )


@st.composite
def backlogs(draw: st.DrawFn, *, minimum: int = 2) -> dict[str, Backlog]:
    found = {}
    for model in draw(st.sets(st.sampled_from(MODELS))):
        users = st.dictionaries(st.sampled_from(["ada", "bob", "cyd"]), st.integers(1, 2_000_000))
        tokens = draw(users)
        oldest = draw(st.floats(0, 1e4)) if tokens else 0.0
        found[model] = Backlog(
            tokens=tokens,
            shards=draw(st.integers(1, 50)) if tokens else 0,
            oldest_seconds=oldest,
            waited_seconds=draw(st.floats(0, oldest)),
            tokens_per_second=draw(st.none() | st.floats(10, 1e5)),
            load_seconds=draw(st.floats(0, 600)),
            gpus=draw(st.sampled_from([1, 2, 4])),
            partition=draw(st.sampled_from(PARTITIONS)),
            minimum=draw(st.integers(0, minimum)),
            maximum=draw(st.none() | st.integers(0, 8)),
        )
    return found


@st.composite
def states(draw: st.DrawFn, *, minimum: int = 2) -> tuple[dict[str, Backlog], list[PilotView], Limits]:
    waiting = draw(backlogs(minimum=minimum))
    pilots = []
    for number in range(draw(st.integers(0, 12))):
        model = draw(st.sampled_from(MODELS))
        phase = draw(st.sampled_from(PilotPhase))
        started = None if phase is PilotPhase.QUEUED else NOW - draw(st.floats(0, 5000))
        idle = started is not None and draw(st.booleans())
        pilots.append(
            PilotView(
                name=f"p{number}",
                model=model,
                phase=phase,
                gpus=waiting[model].gpus if model in waiting else 1,
                partition=waiting[model].partition if model in waiting else "",
                started_at=started,
                idle_since=NOW - draw(st.floats(0, 1000)) if idle else None,
                ends_at=None if started is None else NOW + draw(st.floats(0, 5000)),
            )
        )
    limits = bounds(
        draw(st.integers(0, 40)),
        partitions=draw(st.dictionaries(st.sampled_from(PARTITIONS), st.integers(0, 20))),
        gpus_per_user=draw(st.none() | st.integers(0, 10)),
    )
    return waiting, pilots, limits


def carried_out(decisions: Decisions, waiting: Mapping[str, Backlog], pilots: Sequence[PilotView]) -> list[PilotView]:
    """The pilots after the decisions: drained ones are gone, new ones run."""
    kept = [one for one in pilots if one.name not in decisions.drain and one.phase is not PilotPhase.DRAINING]
    for start in decisions.start:
        one = waiting[start.model]
        for number in range(start.count):
            new = running(
                f"new {start.model} {number} of {len(pilots)} {len(kept)}", start.model, age=0.0, gpus=one.gpus
            )
            kept.append(replace(new, partition=one.partition, ends_at=None))
    return kept


@given(states())
def test_starting_never_goes_beyond_a_limit(state: tuple[dict[str, Backlog], list[PilotView], Limits]) -> None:
    waiting, pilots, limits = state
    decisions = pilots_wanted(waiting, pilots, limits, NOW)
    used: Counter[str] = Counter()
    for pilot in pilots:
        used[pilot.partition] += pilot.gpus
    for start in decisions.start:
        used[waiting[start.model].partition] += start.count * waiting[start.model].gpus
        assert used.total() <= limits.gpus
        assert used[waiting[start.model].partition] <= limits.partitions.get(waiting[start.model].partition, inf)
        most = waiting[start.model].maximum
        assert most is None or start.count <= max(most, waiting[start.model].minimum)


@given(states(minimum=0))
def test_no_pilot_starts_without_work(state: tuple[dict[str, Backlog], list[PilotView], Limits]) -> None:
    waiting, pilots, limits = state
    for start in pilots_wanted(waiting, pilots, limits, NOW).start:
        assert start.count <= waiting[start.model].shards
        assert waiting[start.model].tokens


@given(states())
def test_a_model_does_not_start_and_drain_at_once(
    state: tuple[dict[str, Backlog], list[PilotView], Limits],
) -> None:
    waiting, pilots, limits = state
    decisions = pilots_wanted(waiting, pilots, limits, NOW)
    models = {pilot.name: pilot.model for pilot in pilots}
    ending = {one.name for one in pilots if one.ends_at is not None and one.ends_at <= NOW + 600}
    drained = {models[name] for name in decisions.drain if name not in ending}
    assert not drained & {start.model for start in decisions.start}


@given(states())
def test_the_same_state_gives_the_same_answer_in_any_order(
    state: tuple[dict[str, Backlog], list[PilotView], Limits],
) -> None:
    waiting, pilots, limits = state
    assert pilots_wanted(dict(reversed(waiting.items())), pilots[::-1], limits, NOW) == pilots_wanted(
        waiting, pilots, limits, NOW
    )


@given(states())
def test_a_state_that_does_not_change_settles(state: tuple[dict[str, Backlog], list[PilotView], Limits]) -> None:
    waiting, pilots, limits = state
    pilots = [replace(pilot, ends_at=None) for pilot in pilots]
    for _ in range(2):
        pilots = carried_out(pilots_wanted(waiting, pilots, limits, NOW), waiting, pilots)
    assert pilots_wanted(waiting, pilots, limits, NOW) == Decisions()


@given(states(minimum=0))
def test_everything_goes_when_nothing_waits(state: tuple[dict[str, Backlog], list[PilotView], Limits]) -> None:
    _, pilots, limits = state
    old = [one if one.idle_since is None else replace(one, idle_since=NOW - 301) for one in pilots]
    decisions = pilots_wanted({}, old, limits, NOW)
    left = {one.name for one in old if one.name not in decisions.drain}
    busy = {one.name for one in old if one.phase is PilotPhase.RUNNING and one.idle_since is None}
    draining = {one.name for one in old if one.phase is PilotPhase.DRAINING}
    assert decisions.start == ()
    assert left == busy | draining


@given(states())
def test_a_pilot_at_work_keeps_its_time_of_residence(
    state: tuple[dict[str, Backlog], list[PilotView], Limits],
) -> None:
    waiting, pilots, limits = state
    drained = set(pilots_wanted(waiting, pilots, limits, NOW).drain)
    for pilot in pilots:
        young = pilot.started_at is not None and NOW - pilot.started_at < limits.residence_seconds
        if pilot.phase is PilotPhase.RUNNING and pilot.idle_since is None and young:
            assert pilot.name not in drained


@given(states())
def test_walltimes_are_whole_minutes_within_their_bounds(
    state: tuple[dict[str, Backlog], list[PilotView], Limits],
) -> None:
    waiting, pilots, limits = state
    for start in pilots_wanted(waiting, pilots, limits, NOW).start:
        assert limits.shortest_walltime <= start.walltime_seconds <= limits.longest_walltime
        assert start.walltime_seconds % 60 == 0


def test_a_pilot_starts_for_every_piece_of_work_that_is_worth_a_load() -> None:
    limits = bounds(100)
    for work, count in ((1, 1), (60, 1), (61, 2), (600, 10), (60_000, 100)):
        (start,) = pilots_wanted({"a": backlog(work)}, [], limits, NOW).start
        assert (start.model, start.count) == ("a", count)
    (slow,) = pilots_wanted({"a": backlog(600, load_seconds=300.0)}, [], limits, NOW).start
    assert slow == Start("a", 1, 1200.0)


def test_pilots_that_run_are_counted_before_new_ones_start() -> None:
    pilots = [running(f"p{number}", "a") for number in range(4)]
    assert pilots_wanted({"a": backlog(240)}, pilots, bounds(100), NOW) == Decisions()
    assert pilots_wanted({"a": backlog(300)}, pilots, bounds(100), NOW).start[0].count == 1


def test_one_pilot_measures_a_model_of_unknown_speed() -> None:
    (start,) = pilots_wanted({"a": backlog(1e6, tokens_per_second=None)}, [], bounds(9), NOW).start
    assert start == Start("a", 1, 900.0)


def test_one_user_cannot_take_the_cluster() -> None:
    waiting = {"a": backlog(1e6), "b": backlog(1e6), "c": backlog(tokens={"bob": 10**9}, shards=99)}
    decisions = pilots_wanted(waiting, [], bounds(100, gpus_per_user=10), NOW)
    assert {start.model: start.count for start in decisions.start} == {"a": 10, "c": 10}


def test_gpus_that_are_short_are_dealt_by_the_shares_of_those_who_wait() -> None:
    waiting = {"a": backlog(1e6), "b": backlog(tokens={"bob": 10**9}, shards=99), "c": backlog(100)}
    decisions = pilots_wanted(waiting, [], bounds(32), NOW, {"ada": 1, "bob": 4})
    assert {start.model: start.count for start in decisions.start} == {"a": 6, "b": 24, "c": 2}


def test_a_model_that_waits_gets_a_pilot_at_last_though_others_weigh_more() -> None:
    crowd = backlog(tokens={f"user {number}": 10**8 for number in range(100)}, shards=99)
    limits = bounds(1)
    first = pilots_wanted({"a": crowd, "b": backlog(60)}, [], limits, NOW)
    late = pilots_wanted({"a": crowd, "b": backlog(60, waited_seconds=12_000.0)}, [], limits, NOW)
    assert [start.model for start in (*first.start, *late.start)] == ["a", "b"]


def test_a_pilot_at_work_gives_way_to_a_model_that_has_waited() -> None:
    pilots = [running(f"p{number}", "a") for number in range(4)]
    limits = bounds(4)
    for waited, drained in ((119.0, 0), (120.0, 2)):
        other = backlog(1e6, oldest_seconds=waited, waited_seconds=waited)
        decisions = pilots_wanted({"a": backlog(1e6), "b": other}, pilots, limits, NOW)
        assert (len(decisions.drain), decisions.start) == (drained, ())


def test_what_drains_already_is_not_drained_twice() -> None:
    pilots = [running(f"p{number}", "a") for number in range(4)]
    waiting = {"a": backlog(1e6), "b": backlog(1e6, oldest_seconds=500.0, waited_seconds=500.0)}
    drained = pilots_wanted(waiting, pilots, bounds(4), NOW).drain
    after = [replace(one, phase=PilotPhase.DRAINING) if one.name in drained else one for one in pilots]
    assert pilots_wanted(waiting, after, bounds(4), NOW) == Decisions()
    gone = [one for one in pilots if one.name not in drained]
    assert pilots_wanted(waiting, gone, bounds(4), NOW).start[0].count == len(drained)


def test_an_idle_pilot_gives_way_at_once_to_another_model() -> None:
    pilots = [running("idle", "a", idle=1.0, age=10.0), running("busy", "a")]
    assert pilots_wanted({"b": backlog(60)}, pilots, bounds(2), NOW) == Decisions(drain=("idle",))


def test_nobody_is_evicted_for_a_pilot_that_would_not_fit_even_then() -> None:
    pilots = [running("idle", "a", idle=1.0), running("young", "a", age=5.0)]
    waiting = {"b": backlog(600, gpus=2, oldest_seconds=9e9, waited_seconds=9e9)}
    assert pilots_wanted(waiting, pilots, bounds(2), NOW) == Decisions()


def test_only_pilots_of_the_partition_that_is_short_give_way() -> None:
    near = replace(running("near", "a", idle=2.0), partition="small")
    far = replace(running("far", "c", idle=9.0), partition="large")
    limits = bounds(10, partitions={"small": 1, "large": 1})
    assert pilots_wanted({"b": backlog(60, partition="small")}, [near, far], limits, NOW).drain == ("near",)


def test_an_idle_pilot_stays_for_a_while() -> None:
    for idle, drained in ((299.0, ()), (301.0, ("p",))):
        assert pilots_wanted({"a": backlog()}, [running("p", "a", idle=idle)], bounds(1), NOW).drain == drained


def test_a_minimum_stays_without_work() -> None:
    pilots = [running("p", "a", idle=9e3), running("q", "a", idle=8e3)]
    assert pilots_wanted({"a": backlog(minimum=1)}, pilots, bounds(9), NOW) == Decisions(drain=("p",))
    assert pilots_wanted({"a": backlog(minimum=1)}, [], bounds(9), NOW).start[0].count == 1


def test_pilots_still_queued_are_cancelled_when_their_work_is_gone() -> None:
    queued = [PilotView(name=f"p{number}", model="a", phase=PilotPhase.QUEUED) for number in range(8)]
    limits = bounds(9)
    assert pilots_wanted({"a": backlog(400)}, queued, limits, NOW) == Decisions()
    assert pilots_wanted({"a": backlog(120)}, queued, limits, NOW).drain == ("p4", "p5", "p6", "p7")
    assert len(pilots_wanted({}, queued, limits, NOW).drain) == 8


def test_a_pilot_near_its_walltime_is_followed_by_another() -> None:
    ending = replace(running("p", "a"), ends_at=NOW + 20)
    assert pilots_wanted({"a": backlog(60)}, [ending], bounds(2), NOW).start[0].count == 1
    assert pilots_wanted({"a": backlog()}, [ending], bounds(2), NOW) == Decisions()


def test_a_queued_pilot_is_kept_when_those_before_it_are_at_their_walltime() -> None:
    ending = [replace(running(name, "a"), ends_at=NOW) for name in ("p", "q")]
    queued = PilotView(name="r", model="a", phase=PilotPhase.QUEUED)
    assert pilots_wanted({"a": backlog(60)}, [*ending, queued], Limits(gpus=9), NOW) == Decisions()


@pytest.mark.parametrize("waited", [0.0, 5000.0])
def test_a_thousand_gpus_take_milliseconds(waited: float) -> None:
    users = {f"user {number}": 10**6 for number in range(200)}
    waiting = {
        f"m{number}": backlog(tokens=users, shards=500, oldest_seconds=waited, waited_seconds=waited * (number % 2))
        for number in range(50)
    }
    pilots = [running(f"p{number}", f"m{number % 7}") for number in range(1000)]
    took = []
    for _ in range(5):
        start = process_time()
        decisions = pilots_wanted(waiting, pilots, bounds(1000), NOW)
        took.append(process_time() - start)
    assert min(took) < 0.05
    assert len(decisions.drain) == (860 if waited else 0)
