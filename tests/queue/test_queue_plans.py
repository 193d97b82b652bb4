"""The hot statements walk indexes: the work of a lease does not grow with the queue."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import pytest
from sqlalchemy import Executable, event, text
from sqlalchemy.dialects import sqlite

from ndif_batch.queue.choosing import shard_query, turn_query
from ndif_batch.queue.database import Database
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import JobState
from ndif_batch.queue.store import Queue
from tests.queue.queue_samples import MODEL, job_spec, new_worker, take

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOUNDED = {"SCAN user", "SCAN shard USING INDEX ix_shard_worker"}
"""All users, and all shards that are leased now, grow with the cluster and not with the queue."""


@pytest.fixture
def file_url(sqlite_template: Path, tmp_path: Path) -> str:
    file = tmp_path / "queue.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


def plan(url: str, statement: str) -> list[str]:
    with closing(Database(url)) as database, database.read() as tx:
        return [row.detail for row in tx.connection.execute(text(f"EXPLAIN QUERY PLAN {statement}"))]


def literal(statement: Executable) -> str:
    return str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))  # type: ignore[attr-defined]


@pytest.fixture
def statements(file_url: str) -> Iterator[list[str]]:
    """Every statement that a worker's calls, a look at a job, a retry and a cancel send."""
    sent: list[str] = []
    database = Database(file_url)

    def note(_c: object, cursor: object, statement: str, parameters: object, _x: object, many: bool) -> None:
        if not many and statement.startswith(("SELECT", "UPDATE", "INSERT")):
            sent.append(statement)

    event.listen(database._writer, "before_cursor_execute", note)
    queue = Queue(database)
    queue.add_model(MODEL)
    job = queue.submit(job_spec(shards=50, identity="i" * 64))
    worker = new_worker(queue)
    sent.clear()
    leases = take(queue, worker, 8)
    queue.heartbeat(worker, 60, {lease.shard.id: 1 for lease in leases})
    queue.commit([Finished(leases[0].shard.id, leases[0].shard.epoch)])
    queue.give_back(leases[1].shard.id, leases[1].shard.epoch)
    queue.fail(leases[2].shard.id, leases[2].shard.epoch, "bug", "boom", retryable=False)
    queue.job(job.id)
    queue.earlier("ada", "i" * 64)
    queue.failures(job.id)
    queue.retry(job.id, "ada")
    queue.cancel(job.id, "ada")
    queue.stop_worker(worker)
    yield list(dict.fromkeys(sent))
    queue.close()


def test_the_shards_of_a_user_are_walked_in_order_of_two_indexes_and_not_sorted(file_url: str) -> None:
    steps = plan(file_url, literal(shard_query(MODEL.name, "ada", NOW, 64)))
    assert steps == [
        "SEARCH job USING INDEX ix_job_leasable (model=? AND user=?)",
        "SEARCH shard USING INDEX ix_shard_pending (job_id=?)",
    ]


def test_earlier_jobs_of_an_identity_are_found_by_one_index(file_url: str, statements: list[str]) -> None:
    (found,) = [statement for statement in statements if "job.identity =" in statement]
    steps = plan(file_url, found.replace("?", "NULL"))
    assert steps == ["SEARCH job USING INDEX ix_job_identity (user=? AND identity=?)"]


def test_whose_turn_it_is_costs_one_probe_a_user(file_url: str) -> None:
    steps = plan(file_url, literal(turn_query(MODEL.name, NOW)))
    assert [step for step in steps if not step.startswith("CORRELATED")] == [
        "SCAN user",
        "SEARCH job USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH other USING INDEX ix_job_leasable (model=? AND user=?)",
        "SEARCH shard USING INDEX ix_shard_pending (job_id=?)",
    ]


def test_no_statement_of_the_hot_path_scans_a_table(file_url: str, statements: list[str]) -> None:
    assert len(statements) > 12
    for statement in statements:
        steps = plan(file_url, statement.replace("?", "NULL"))
        scans = [step for step in steps if step.startswith("SCAN") and "CONSTANT ROW" not in step]
        assert set(scans) <= BOUNDED, statement


@pytest.mark.parametrize(("shards", "each", "seconds"), [(1_000, 1_000, 1.0), (100_000, 10, 10.0)])
def test_a_million_tasks_are_submitted_and_leased_at_once(
    file_url: str, shards: int, each: int, seconds: float
) -> None:
    with Queue.open(file_url) as queue:
        queue.add_model(MODEL)
        start = perf_counter()
        job = queue.submit(job_spec(shards, each))
        assert perf_counter() - start < seconds
        worker = new_worker(queue)
        start = perf_counter()
        leases = take(queue, worker, 64)
        assert queue.commit([Finished(leases[0].shard.id, leases[0].shard.epoch)])
        assert perf_counter() - start < 1.0
        assert queue.job(job.id).tasks_done == each
        assert queue.cancel(job.id, "ada").state is JobState.CANCELLED
