"""The hot statements walk indexes: the work of a lease does not grow with the queue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from sqlalchemy import Executable, Select, event, text
from sqlalchemy.dialects import postgresql, sqlite

from ndif_batch.queue import free, tallies, turns
from ndif_batch.queue.database import Database
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import JobRecord, JobState
from ndif_batch.queue.store import Queue
from ndif_batch.queue.tables import KEPT, job
from tests.queue.queue_samples import MODEL, job_spec, new_worker, take

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ASKED: Mapping[str, Any] = {
    "model": MODEL.name,
    "name": "user07",
    "names": ["user07", "user08"],
    "now": NOW,
    "most": 64,
    "pace": 0.1,
    "half_life": 168.0,
    "all_usage": 100.0,
    "all_shares": 100.0,
}


@pytest.fixture
def file_url(sqlite_template: Path, tmp_path: Path) -> str:
    file = tmp_path / "queue.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


def plan(url: str, statement: str) -> list[str]:
    with closing(Database(url)) as database, database.read() as tx:
        return [row.detail for row in tx.connection.execute(text(f"EXPLAIN QUERY PLAN {statement}"))]


def literal(statement: Executable, dialect: Any) -> str:
    known = statement.params({name: ASKED[name] for name in statement.compile(dialect=dialect).params if name in ASKED})  # type: ignore[attr-defined]
    return str(known.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def use(queue: Queue, mine: JobRecord, worker: int) -> None:
    """All that a worker's calls, a look at a job, a retry and a cancel send."""
    leases = take(queue, worker, 8)
    queue.heartbeat(worker, 60, {lease.shard.id: 1 for lease in leases})
    queue.commit([Finished(lease.shard.id, lease.shard.epoch) for lease in leases[3:]])
    queue.give_back(leases[1].shard.id, leases[1].shard.epoch)
    queue.fail(leases[2].shard.id, leases[2].shard.epoch, "bug", "boom", retryable=False)
    queue.job(mine.id)
    queue.earlier("ada", "i" * 64)
    queue.failures(mine.id)
    queue.retry(mine.id, "ada")
    queue.cancel(mine.id, "ada")
    queue.stop_worker(worker)


@pytest.fixture
def statements(file_url: str) -> Iterator[list[str]]:
    sent: list[str] = []
    database = Database(file_url)

    def note(_c: object, cursor: object, statement: str, parameters: object, _x: object, many: bool) -> None:
        if not many and statement.startswith(("SELECT", "UPDATE", "INSERT")):
            sent.append(statement)

    queue = Queue(database)
    queue.add_model(MODEL)
    mine, worker = queue.submit(job_spec(shards=50, identity="i" * 64)), new_worker(queue)
    event.listen(database._writer, "before_cursor_execute", note)
    use(queue, mine, worker)
    yield list(dict.fromkeys(sent))
    queue.close()


def test_the_shards_of_a_user_are_walked_in_order_of_two_indexes_and_not_sorted(file_url: str) -> None:
    assert plan(file_url, literal(free.user_query(), sqlite.dialect())) == [
        "SEARCH job USING INDEX ix_job_leasable (model=? AND user=?)",
        "SEARCH shard USING INDEX ix_shard_pending (job_id=?)",
    ]


def test_whose_turn_it_is_costs_a_row_a_user_and_no_job_or_shard(file_url: str) -> None:
    steps = plan(file_url, literal(turns.turn_query(), sqlite.dialect()))
    assert "SEARCH waiting USING INDEX sqlite_autoindex_waiting_1 (model=?)" in steps
    assert not [step for step in steps if "job" in step or "shard" in step]


@pytest.mark.parametrize("query", [turns.turn_query, turns.claiming_query])
def test_of_known_users_only_their_rows_are_read(filled: str, query: Callable[..., Select[Any]]) -> None:
    steps = explained(filled, literal(query(summed=True, among=True), postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert not [step for step in steps if step.get("Relation Name") in ("job", "shard")]


def test_the_newest_pilots_are_found_by_indexes(file_url: str) -> None:
    sent: list[str] = []
    with Queue.open(file_url) as queue:
        event.listen(queue._database._writer, "before_cursor_execute", lambda _c, _k, sql, *_: sent.append(sql))
        assert queue.newest_pilots([MODEL.name, "other"], 3) == []
    (found,) = [statement for statement in sent if "FROM pilot" in statement]
    steps = [step for step in plan(file_url, found.replace("?", "NULL")) if " pilot" in step]
    assert all("INDEX" in step or "PRIMARY KEY" in step for step in steps)
    assert len([step for step in steps if "ix_pilot_ended (model=?)" in step]) == 2


def test_earlier_jobs_of_an_identity_are_found_by_one_index(file_url: str, statements: list[str]) -> None:
    (found,) = [statement for statement in statements if "job.identity =" in statement]
    steps = plan(file_url, found.replace("?", "NULL"))
    assert steps == ["SEARCH job USING INDEX ix_job_identity (user=? AND identity=?)"]


def test_ended_and_expired_jobs_are_found_by_the_time_of_their_end(file_url: str) -> None:
    ended = "SELECT id FROM job WHERE finished_at > '2026' AND finished_at <= '2027' ORDER BY finished_at LIMIT 5"
    assert plan(file_url, ended) == [
        "SEARCH job USING COVERING INDEX ix_job_finished (finished_at>? AND finished_at<?)"
    ]
    (step,) = plan(file_url, f"SELECT id FROM job WHERE {KEPT} ORDER BY finished_at LIMIT 5")
    assert "INDEX ix_job_kept" in step


def test_no_statement_of_the_hot_path_scans_a_table(file_url: str, statements: list[str]) -> None:
    assert len(statements) > 12
    for statement in statements:
        steps = plan(file_url, statement.replace("?", "NULL"))
        scans = [
            step for step in steps if step.startswith("SCAN") and step.split()[1] in ("job", "shard", "event", "user")
        ]
        assert not scans, statement


COPIED = ", ".join(f'"{column.name}"' for column in job.c if column.name != "id")
MORE = [
    f"INSERT INTO job ({COPIED}) SELECT {COPIED} FROM job, generate_series(1, 49)",
    """INSERT INTO shard (job_id, "index", first_task, tasks) SELECT job.id, n, 10 * n, 10
    FROM job, generate_series(0, 99) AS n WHERE NOT EXISTS (SELECT 1 FROM shard WHERE job_id = job.id)""",
]
"""A thousand jobs of a hundred shards."""


@pytest.fixture(scope="module")
def filled(postgres_server: str) -> Iterator[str]:
    """A PostgreSQL with so many jobs and shards that the planner has the choice."""
    with closing(Database(postgres_server)) as database:
        with database.write() as tx:
            tx.connection.execute(text('TRUNCATE job, shard, "user", worker, model, graph, event CASCADE'))
        with Queue.open(postgres_server) as queue:
            queue.add_model(MODEL)
            for user in range(20):
                queue.submit(job_spec(shards=20, user=f"user{user:02}"))
        with database.write() as tx:
            for statement in MORE:
                tx.connection.execute(text(statement))
        with database._writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        yield postgres_server


def nodes(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield found
    for child in found.get("Plans", ()):
        yield from nodes(child)


def explained(url: str, statement: str) -> list[Mapping[str, Any]]:
    with closing(Database(url)) as database, database.read() as tx:
        found = tx.connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement.replace('%', '%%')}").scalar_one()
    plans = json.loads(found) if isinstance(found, str) else found
    return list(nodes(plans[0]["Plan"]))


@pytest.mark.parametrize("query", [free.lateral_query, turns.turn_query, tallies.head_query])
def test_a_lease_on_postgresql_walks_indexes_and_sorts_no_shards(filled: str, query: Callable[[], Select[Any]]) -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    steps = explained(filled, literal(query(), dialect))
    assert not [step for step in steps if step["Node Type"] == "Seq Scan" and step["Relation Name"] in ("job", "shard")]
    shards = [step for step in steps if step.get("Relation Name") == "shard"]
    assert bool(shards) is (query is not turns.turn_query)
    for step in steps:
        if step["Node Type"] in ("Sort", "Incremental Sort"):
            assert not [below for below in nodes(step) if below.get("Relation Name") == "shard"]
    if query is free.lateral_query:
        assert {step["Index Name"] for step in shards} == {"ix_shard_pending"}


def test_what_workers_send_to_postgresql_scans_no_jobs_or_shards(filled: str) -> None:
    sent: list[tuple[str, Any]] = []
    with Queue.open(filled) as queue:

        def note(_c: object, cursor: object, statement: str, parameters: Any, _x: object, many: bool) -> None:
            if not many and statement.startswith(("SELECT", "UPDATE", "INSERT")):
                sent.append((statement, parameters))

        mine, worker = queue.submit(job_spec(shards=50, priority=1)), new_worker(queue)
        event.listen(queue._database._writer, "before_cursor_execute", note)
        use(queue, mine, worker)
    assert len(sent) > 12
    with closing(Database(filled)) as database, database.read() as tx:
        for statement, parameters in {statement: (statement, parameters) for statement, parameters in sent}.values():
            found = tx.connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
            for step in nodes(found[0]["Plan"]):
                if step["Node Type"] == "Seq Scan":
                    assert step["Relation Name"] not in ("job", "shard", "event"), statement


@pytest.mark.parametrize(("shards", "each", "seconds"), [(1_000, 1_000, 1.0), (100_000, 10, 10.0)])
def test_a_million_tasks_are_submitted_and_leased_at_once(
    file_url: str, shards: int, each: int, seconds: float
) -> None:
    with Queue.open(file_url) as queue:
        queue.add_model(MODEL)
        start = perf_counter()
        mine = queue.submit(job_spec(shards, each))
        assert perf_counter() - start < seconds
        worker = new_worker(queue)
        start = perf_counter()
        leases = take(queue, worker, 64)
        assert queue.commit([Finished(leases[0].shard.id, leases[0].shard.epoch)])
        assert perf_counter() - start < 1.0
        assert queue.job(mine.id).tasks_done == each
        assert queue.cancel(mine.id, "ada").state is JobState.CANCELLED
