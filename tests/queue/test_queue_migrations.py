"""A database of every released revision comes to the head with all that is stored in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from ndif_batch.errors import UnavailableError
from ndif_batch.queue import schema
from ndif_batch.queue.cluster import Cost, Quotas, Role
from ndif_batch.queue.database import Database
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import JobState, ShardState, WorkerState
from ndif_batch.queue.store import Queue
from tests.queue import postgres
from tests.queue.queue_samples import MODEL, new_worker, take

AT = "'2026-01-01 00:00:00.000000'"
FILLED = [
    f"INSERT INTO model VALUES ('{MODEL.name}', 's', '/m', 'r', 'float32', 'd', '{{}}', true, {AT})",
    f"INSERT INTO graph VALUES ('g', '{{}}', {AT})",
    *[
        f"""INSERT INTO job (id, name, "user", model, graph_digest, space, seed, tasks, tile, arrays, options,
        tokens_per_task, archive, priority, max_retries, key, state, submitted_at, started_at, finished_at, shards,
        shards_left, tasks_done, tasks_failed) VALUES ({job}, 'n', '{user}', '{MODEL.name}', 'g', '{{}}', 1, 20,
        '[10]', '[]', '{{}}', 5, '/a', 0, 2, NULL, {state})"""
        for job, user, state in (
            (1, "ada", f"'RUNNING', {AT}, {AT}, NULL, 2, 1, 10, 0"),
            (2, "bob", f"'COMPLETED', {AT}, {AT}, {AT}, 1, 0, 20, 0"),
        )
    ],
    f"""INSERT INTO worker (id, model, host, pid, state, registered_at, heartbeat_at, alive_until)
    VALUES (1, '{MODEL.name}', 'n', 1, 'RUNNING', {AT}, {AT}, {AT})""",
    """INSERT INTO shard (id, job_id, "index", first_task, tasks, state, epoch, tasks_done)
    VALUES (1, 1, 0, 0, 10, 'DONE', 1, 10)""",
    f"""INSERT INTO shard (id, job_id, "index", first_task, tasks, state, epoch, worker_id, lease_until)
    VALUES (2, 1, 1, 10, 10, 'LEASED', 3, 1, {AT})""",
    """INSERT INTO shard (id, job_id, "index", first_task, tasks, state, epoch, tasks_done)
    VALUES (3, 2, 0, 0, 20, 'DONE', 1, 20)""",
    f"""INSERT INTO event (at, kind, actor, job_id, detail) VALUES ({AT}, 'job.submitted', 'ada', 1, '{{}}')""",
]


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A filled database at revision 0001."""
    if request.param == "sqlite":
        yield fill(f"sqlite:///{tmp_path / 'queue.db'}")
        return
    with postgres.server("fsync=off") as url:
        yield fill(url)


def fill(url: str) -> str:
    config = Config()
    config.set_main_option("script_location", str(schema.scripts()))
    with closing(Database(url)) as database, database.write() as tx:
        config.attributes["connection"] = tx.connection
        command.upgrade(config, "0001")
        for statement in FILLED:
            tx.connection.execute(text(statement.replace("\n", " ").replace(":", r"\:")))
    return url


def test_a_filled_database_of_0001_is_refused_until_upgraded_and_then_goes_on(old: str) -> None:
    with pytest.raises(UnavailableError, match=r"at schema 0001, not .*\n  hint: run `ndif-batch db upgrade`"):
        Queue.open(old)
    assert schema.upgrade(old) == schema.head()
    with Queue.open(old) as queue:
        assert [(job.id, job.state, job.tasks_done) for job in queue.jobs()] == [
            (2, JobState.COMPLETED, 20),
            (1, JobState.RUNNING, 10),
        ]
        assert [(one.name, one.role, one.shares, one.quotas) for one in queue.users()] == [
            ("ada", Role.USER, 1.0, Quotas()),
            ("bob", Role.USER, 1.0, Quotas()),
        ]
        assert [(one.state, one.epoch) for one in queue.shards(1)] == [(ShardState.DONE, 1), (ShardState.LEASED, 3)]
        assert (queue.workers()[0].state, queue.workers()[0].tokens) == (WorkerState.RUNNING, 0)
        assert len(queue.events(1)) == 1
        if old.startswith("postgresql"):
            with queue._database.write() as tx:
                tx.connection.execute(text("SELECT setval('worker_id_seq', 9)"))
        assert queue.set_role("bob", Role.READER, actor="root").role is Role.READER
        assert queue.authenticate(queue.create_token("bob", actor="root").text).user == "bob"
        (lease,) = take(queue, new_worker(queue))
        assert (lease.shard.id, lease.shard.epoch) == (2, 4)
        assert queue.commit([Finished(2, 4, cost=Cost(1.0, 50))])
        assert queue.job(1).state is JobState.COMPLETED
        assert queue.usage_of("ada")[0].cost == Cost(1.0, 50)
        assert (queue.job(2).retention_days, queue.job(2).expires_at, queue.expire_results("root")) == (None, None, [])
        assert (queue.workers()[0].tokens, queue.workers()[0].shared_tokens) == (50, 0)
