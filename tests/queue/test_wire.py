"""A worker's calls come through JSON as they were made, in a form that is strict, and the queue behind it conforms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndif_batch.errors import GraphError, NdifBatchError, TaskError, UnavailableError, UsageError
from ndif_batch.queue import wire
from ndif_batch.queue.protocol import Finished, WorkerQueue
from ndif_batch.queue.records import JobRecord, Lease, ModelRecord, ShardRecord, TaskFailure
from ndif_batch.queue.remote import RemoteQueue, serve
from ndif_batch.queue.store import Queue
from tests.queue.conftest import HandClock
from tests.queue.queue_samples import job_spec, new_worker, take
from tests.queue.worker_queue_conformance import WorkerQueueConformance
from tests.queue.worker_queue_stand import Outage, Stand

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=5,
)
JSON = st.dictionaries(st.text("abcé☹", max_size=3), VALUES, max_size=3)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WORDS = st.text("ab/", min_size=1, max_size=8)
NUMBERS = st.integers(-(2**63), 2**63)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
st.register_type_strategy(str, TEXT)
st.register_type_strategy(float, FLOATS)
st.register_type_strategy(datetime, TIMES)
st.register_type_strategy(Path, WORDS.map(Path))
st.register_type_strategy(Mapping, lambda kind: st.dictionaries(*map(st.from_type, get_args(kind)), max_size=3))

FAILURES = st.lists(st.from_type(TaskFailure), max_size=3)
FINISHED = st.lists(st.builds(Finished, failures=FAILURES), max_size=3)
IDS = st.lists(NUMBERS, max_size=3)
OF: dict[Any, st.SearchStrategy[Any]] = {
    "finished": FINISHED,
    "held": st.none() | IDS,
    "job_ids": IDS,
    "progress": st.dictionaries(NUMBERS, NUMBERS, max_size=3),
}
JOBS = st.builds(
    JobRecord, graph=JSON, space=JSON, options=JSON, arrays=st.lists(JSON, max_size=2), tile=IDS.map(tuple)
)


@st.composite
def leases(draw: st.DrawFn) -> list[Lease]:
    jobs = draw(st.lists(JOBS, min_size=1, max_size=2, unique_by=lambda job: job.id))
    chosen = draw(st.lists(st.sampled_from(jobs), max_size=4))
    return [Lease(draw(st.builds(ShardRecord, job_id=st.just(job.id))), job) for job in chosen]


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    call = draw(st.sampled_from(sorted(wire.CALLS)))
    hints = get_type_hints(getattr(WorkerQueue, call))
    hints.pop("return")
    return call, {name: draw(OF.get(name, st.from_type(hint))) for name, hint in hints.items()}


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, Any]:
    call = draw(st.sampled_from(sorted(wire.CALLS)))
    hint = get_type_hints(getattr(WorkerQueue, call))["return"]
    special = {"lease": leases(), "model": st.builds(ModelRecord, info=JSON), "source": st.none() | JOBS}
    special["prerequisite"] = special["source"]
    return call, draw(special.get(call, st.from_type(hint)))


quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(requests())
def test_every_request_comes_through_as_it_was_made(made: tuple[str, dict[str, Any]]) -> None:
    assert wire.request_from_json(wire.request_to_json(*made)) == made


@quick
@given(answers())
def test_every_answer_comes_through_as_it_was_given(given: tuple[str, Any]) -> None:
    call, answer = given
    assert wire.answer_from_json(call, wire.answer_to_json(call, answer)) == answer


@pytest.mark.parametrize("code", sorted(wire.ERRORS))
def test_every_error_comes_back_as_its_class(code: str) -> None:
    kind = wire.ERRORS[code]
    error = kind("wrong", rule="r", node=3, hint="h") if kind is GraphError else kind("wrong")
    with pytest.raises(NdifBatchError) as back:
        wire.answer_from_json("has_work", wire.error_to_json(error))
    assert type(back.value) is kind
    assert (str(back.value), vars(back.value)) == (str(error), vars(error))


def test_an_error_tells_its_node_and_an_unknown_one_its_message() -> None:
    with pytest.raises(TaskError) as known:
        wire.answer_from_json("model", wire.error_to_json(TaskError("NaN", node=7)))
    assert known.value.node == 7
    newer = wire.error_to_json(UsageError("over the quota")).replace(b'"usage"', b'"quota"')
    with pytest.raises(NdifBatchError, match="over the quota"):
        wire.answer_from_json("model", newer)


@pytest.mark.parametrize(
    ("request_text", "reason"),
    [
        ("<html>", "request: Invalid JSON"),
        ("{}", "request: call: Field required"),
        ('{"call": "cancel", "job_id": 1}', "no call 'cancel'"),
        ('{"call": "has_work", "model": "a", "more": 1}', "has_work: more: Extra inputs are not permitted"),
        ('{"call": "has_work"}', "has_work: model: Field required"),
        ('{"call": "stop_worker", "worker_id": "1"}', "stop_worker: worker_id: Input should be a valid integer"),
        ('{"call": "stop_worker", "worker_id": true}', "stop_worker: worker_id: Input should be a valid integer"),
        (
            '{"call": "commit", "finished": [{"shard_id": 1, "epoch": 1, "cost": {"gpu_seconds": NaN}}]}',
            "commit: finished.0.cost.gpu_seconds: Input should be a finite number",
        ),
        (
            '{"call": "commit", "finished": [{"shard_id": 1, "epoch": 1, "late": 0}]}',
            "commit: finished.0.late: Unexpected keyword argument",
        ),
    ],
)
def test_a_request_in_another_form_is_refused_and_says_where(queue: Queue, request_text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        wire.answer_from_json("has_work", serve(queue, request_text.encode()))


@pytest.mark.parametrize("reply", ["<html>busy</html>", "{}", '{"answer": 1}', '{"answer": true, "more": 1}'])
def test_what_is_no_reply_counts_as_an_outage(reply: str) -> None:
    with pytest.raises(UnavailableError, match="the reply to has_work"):
        wire.answer_from_json("has_work", reply.encode())


def test_a_job_is_sent_once_for_all_its_shards_and_must_be_there(queue: Queue) -> None:
    job = queue.submit(job_spec())
    found = take(queue, new_worker(queue), 3)
    sent = json.loads(wire.answer_to_json("lease", found))
    assert [one["id"] for one in sent["answer"]["jobs"]] == [job.id]
    assert len(sent["answer"]["shards"]) == 3
    sent["answer"]["jobs"] = []
    with pytest.raises(UnavailableError, match="shards without their jobs"):
        wire.answer_from_json("lease", json.dumps(sent).encode())


class Line:
    """A transport inside one process that can be cut on the way there and on the way back."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._cut: str | None = None

    def send(self, request: bytes) -> bytes:
        if self._cut == "there":
            raise UnavailableError("the server does not answer")
        reply = serve(self._queue, request)
        if self._cut == "back":
            raise UnavailableError("the answer did not come")
        return reply

    @contextmanager
    def cut(self, where: str) -> Iterator[None]:
        self._cut = where
        yield
        self._cut = None


class TestWire(WorkerQueueConformance):
    @pytest.fixture
    def url(self, sqlite_template: Path, tmp_path: Path) -> str:
        file = tmp_path / "queue.db"
        shutil.copy(sqlite_template, file)
        return f"sqlite:///{file}"

    @pytest.fixture
    def line(self, queue: Queue) -> Line:
        return Line(queue)

    @pytest.fixture
    def stand(self, queue: Queue, line: Line, clock: HandClock) -> Stand:
        return Stand(RemoteQueue(line.send), queue, clock)

    @pytest.fixture(params=["there", "back"])
    def outage(self, request: pytest.FixtureRequest, line: Line) -> Outage:
        return Outage(partial(line.cut, request.param), happens=request.param == "back")
