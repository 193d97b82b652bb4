"""One queue a test, on each database that this machine has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
from queue_samples import MODEL, check_sums
from sqlalchemy import create_engine, text

from ndif_batch.queue import schema
from ndif_batch.queue.store import Queue


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "queue.db"
    schema.upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A socket directory of a running server, with a migrated database ``template_queue``."""
    if find_spec("psycopg") is None or shutil.which("initdb") is None:
        pytest.skip("no PostgreSQL here")
    home = Path(subprocess.check_output(["mktemp", "-d", "/tmp/ndif-pg-XXXXXX"], text=True).strip())
    shutil.chown(home, "postgres")
    options = f"-k {home} -c listen_addresses='' -c fsync=off"
    run = ["runuser", "-u", "postgres", "--"]
    subprocess.run([*run, "initdb", "-A", "trust", "-U", "postgres", "-D", home / "data"], check=True, stdout=-3)
    control = [*run, "pg_ctl", "-w", "-D", str(home / "data")]
    subprocess.run([*control, "-l", str(home / "log"), "-o", options, "start"], check=True, stdout=-3)
    try:
        admin = create_engine(postgres_url(str(home), "postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE template_queue"))
        admin.dispose()
        schema.upgrade(postgres_url(str(home), "template_queue"))
        yield str(home)
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=-3)
        shutil.rmtree(home)


def postgres_url(socket: str, database: str) -> str:
    return f"postgresql+psycopg://postgres@/{database}?host={socket}"


_names = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database at the newest schema."""
    if request.param == "sqlite":
        file = tmp_path / "queue.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        yield f"sqlite:///{file}"
        return
    socket = request.getfixturevalue("postgres_server")
    name = f"queue_{next(_names)}"
    admin = create_engine(postgres_url(socket, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template_queue"))
    yield postgres_url(socket, name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def queue(url: str, clock: HandClock) -> Iterator[Queue]:
    """A queue that knows ``MODEL`` and whose time stands still; its sums must be right when the test ends."""
    with Queue.open(url, clock) as opened:
        opened.add_model(MODEL)
        yield opened
        check_sums(opened)
