"""Migrations lead to exactly the tables, stale schemas are refused with what to do, CHECKs refuse bad rows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import IntegrityError

from ndif_batch.errors import SettingsError, UnavailableError
from ndif_batch.queue import schema
from ndif_batch.queue.cluster import Cost
from ndif_batch.queue.database import Database
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.store import Queue
from ndif_batch.queue.tables import metadata
from tests.queue.queue_samples import MODEL, job_spec, new_worker, take


@pytest.fixture
def empty(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new folder' / 'queue.db'}"


@contextmanager
def connect(url: str) -> Iterator[Connection]:
    with closing(Database(url)) as database, database.write() as tx:
        yield tx.connection


def sql(url: str, statement: str) -> None:
    with connect(url) as connection:
        connection.execute(text(statement))


def checks(connection: Connection) -> dict[str, dict[str, str]]:
    found = inspect(connection)
    return {
        table: {str(rule["name"]): rule["sqltext"] for rule in found.get_check_constraints(table)}
        for table in metadata.tables
    }


def indexes(connection: Connection) -> dict[str, str]:
    found = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
    return {name: statement.replace('"', "") for name, statement in found}


def test_an_empty_database_is_brought_to_the_head_and_again_changes_nothing(empty: str) -> None:
    assert schema.current(empty) is None
    assert schema.upgrade(empty) == schema.head()
    with Queue.open(empty) as queue:
        queue.add_model(MODEL)
    assert schema.upgrade(empty) == schema.current(empty) == schema.head()
    with Queue.open(empty) as queue:
        assert queue.model(MODEL.name).digest == MODEL.digest


def test_migrations_lead_to_the_tables(url: str) -> None:
    with connect(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_lead_to_the_check_constraints(sqlite_template: Path, tmp_path: Path) -> None:
    with connect(f"sqlite:///{sqlite_template}") as connection:
        migrated = checks(connection)
    with connect(f"sqlite:///{tmp_path / 'created.db'}") as connection:
        metadata.create_all(connection)
        assert migrated == checks(connection)
    assert {name for rules in migrated.values() for name in rules} == set(BAD_ROWS)


def test_migrations_lead_to_the_indexes(sqlite_template: Path, tmp_path: Path) -> None:
    with connect(f"sqlite:///{sqlite_template}") as connection:
        migrated = indexes(connection)
    with connect(f"sqlite:///{tmp_path / 'created.db'}") as connection:
        metadata.create_all(connection)
        assert migrated == indexes(connection)
    assert "WHERE ended_at IS NOT NULL" in migrated["ix_pilot_ended"]


def test_the_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.scripts()))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.head()]


def test_a_script_goes_down_as_well(empty: str) -> None:
    from alembic import command

    schema.upgrade(empty)
    config = Config()
    config.set_main_option("script_location", str(schema.scripts()))
    with connect(empty) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]


def test_a_missing_queue_is_refused_with_what_to_do_and_not_created(empty: str, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"there is no queue at .*\n  hint: run `ndif-batch db upgrade`"):
        Queue.open(empty)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("revision", "message"),
    [("0000", r"at schema 0000, not .*\n  hint: run `ndif-batch db upgrade`"), ("9999", "newer than")],
)
def test_a_stale_or_newer_schema_is_refused_with_what_to_do(url: str, revision: str, message: str) -> None:
    sql(url, f"UPDATE alembic_version SET version_num = '{revision}'")
    try:
        with pytest.raises(UnavailableError, match=message):
            Queue.open(url)
    finally:
        sql(url, f"UPDATE alembic_version SET version_num = '{schema.head()}'")


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "queue.db"
    file.write_text("not a database, " * 100)
    with pytest.raises(UnavailableError, match=r"queue\.db cannot serve: file is not a database"):
        Queue.open(f"sqlite:///{file}")


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot create"):
        schema.upgrade(f"sqlite:///{tmp_path / 'file' / 'deeper' / 'queue.db'}")


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_cannot_hold_a_queue_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="database_url"):
        Queue.open(url)


def test_a_server_that_does_not_answer_is_unavailable_and_its_password_stays_secret(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot serve") as caught:
        Queue.open(f"postgresql+psycopg://ada:s3cret@/queue?host={tmp_path}")
    assert "s3cret" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named_with_what_to_do() -> None:
    with pytest.raises(UnavailableError, match=r"psycopg2cffi.*\n  hint: pip install 'ndif-batch\[postgres\]'"):
        Queue.open("postgresql+psycopg2cffi://host/queue")


def test_the_records_need_no_sql_library() -> None:
    code = "import sys, ndif_batch.queue.records, ndif_batch.queue.protocol, ndif_batch.queue.states\n"
    code += "assert not {'sqlalchemy', 'alembic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(schema.__file__).parents[2])


BAD_ROWS = {
    "ck_job_state": "UPDATE job SET state = 'NAPPING'",
    "ck_job_finished": "UPDATE job SET finished_at = submitted_at",
    "ck_job_pending_not_started": "UPDATE job SET state = 'PENDING'",
    "ck_job_running_started": "UPDATE job SET started_at = NULL",
    "ck_job_final_has_no_shard_left": "UPDATE job SET state = 'CANCELLED', finished_at = submitted_at",
    "ck_job_completed_is_whole": "UPDATE job SET state = 'COMPLETED', finished_at = submitted_at, shards_left = 0",
    "ck_job_failed_has_reason": "UPDATE job SET state = 'FAILED', finished_at = submitted_at, shards_left = 0",
    "ck_job_shards": "UPDATE job SET shards_left = 5",
    "ck_job_tasks": "UPDATE job SET tasks_done = 30, tasks_failed = 11",
    "ck_job_bounds": "UPDATE job SET tokens_per_task = -1",
    "ck_worker_state": "UPDATE worker SET state = 'NAPPING'",
    "ck_worker_stopped": "UPDATE worker SET state = 'STOPPED'",
    "ck_shard_state": "UPDATE shard SET state = 'NAPPING' WHERE \"index\" = 1",
    "ck_shard_lease_until": 'UPDATE shard SET lease_until = NULL WHERE "index" = 0',
    "ck_shard_worker_id": 'UPDATE shard SET worker_id = 1 WHERE "index" = 1',
    "ck_shard_ready_at": 'UPDATE shard SET ready_at = lease_until WHERE "index" = 0',
    "ck_shard_reason": "UPDATE shard SET code = 'io', reason = 'io' WHERE \"index\" = 1",
    "ck_shard_tasks": 'UPDATE shard SET tasks = 0 WHERE "index" = 1',
    "ck_shard_done": "UPDATE shard SET state = 'DONE', tasks_done = 9 WHERE \"index\" = 1",
    "ck_shard_failed": "UPDATE shard SET state = 'FAILED', code = 'io', reason = 'io' WHERE \"index\" = 1",
    "ck_shard_leased": 'UPDATE shard SET tasks_done = 11 WHERE "index" = 0',
    "ck_shard_open": 'UPDATE shard SET tasks_done = 1 WHERE "index" = 1',
    "ck_shard_counts": 'UPDATE shard SET deaths = 1 WHERE "index" = 1',
    "ck_user_role": "UPDATE \"user\" SET role = 'king'",
    "ck_user_shares": 'UPDATE "user" SET shares = 0',
    "ck_user_quotas": 'UPDATE "user" SET running_shards = -1',
    "ck_user_leased": 'UPDATE "user" SET leased_shards = -1',
    "ck_token_expires_at": "UPDATE token SET expires_at = created_at",
    "ck_keyed_request_answer": "UPDATE keyed_request SET answer = 'null'",
    "ck_waiting_head": "UPDATE waiting SET priority = NULL",
    "ck_waiting_ready_at": "UPDATE waiting SET job_id = NULL, priority = NULL, since = NULL, ready_at = since",
    "ck_usage_costs": "UPDATE usage SET tokens = -1",
    "ck_pilot_state": "UPDATE pilot SET state = 'NAPPING'",
    "ck_pilot_ended": "UPDATE pilot SET state = 'ENDED'",
    "ck_pilot_running_started": "UPDATE pilot SET state = 'RUNNING'",
    "ck_pilot_failed_has_reason": "UPDATE pilot SET state = 'FAILED', ended_at = requested_at",
}


@pytest.mark.parametrize("rule", BAD_ROWS)
def test_a_row_that_cannot_be_is_refused_by_its_check(queue: Queue, url: str, rule: str) -> None:
    queue.submit(job_spec())
    _, *others = take(queue, new_worker(queue), 4)
    for lease in others[:-1]:
        queue.give_back(lease.shard.id, lease.shard.epoch)
    queue.commit([Finished(others[-1].shard.id, others[-1].shard.epoch, cost=Cost(gpu_seconds=1))])
    queue.create_token("ada", actor="root")
    queue.claim_key("root", "k", "f")
    queue.add_pilot("p1", MODEL.name, "slurm", {}, actor="scheduler")
    with pytest.raises(IntegrityError, match=rule):
        sql(url, BAD_ROWS[rule])


def test_a_shard_without_its_job_is_refused(url: str) -> None:
    insert = 'INSERT INTO shard (job_id, "index", first_task, tasks) VALUES (99, 0, 0, 1)'
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        sql(url, insert)
