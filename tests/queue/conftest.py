"""One queue a test, on each database that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import pytest
from sqlalchemy import create_engine, text

from ndif_batch.queue import schema
from ndif_batch.queue.store import Queue
from ndif_batch.queue.tables import metadata
from tests.queue.queue_samples import MODEL, check_sums


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
    """The URL of a migrated database on a server of its own."""
    if find_spec("psycopg") is None or shutil.which("initdb") is None:
        pytest.skip("no PostgreSQL here")
    home = Path(mkdtemp(prefix="ndif-batch-"))  # pytest's own folder is closed to the server's user
    if os.geteuid() == 0:
        shutil.chown(home, "postgres")
    options = f"-k {home} -c listen_addresses='' -c fsync=off"
    run = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run(
        [*run, "initdb", "-A", "trust", "-U", "postgres", "-D", home / "data"], check=True, stdout=subprocess.DEVNULL
    )
    control = [*run, "pg_ctl", "-w", "-D", str(home / "data")]
    subprocess.run([*control, "-l", str(home / "log"), "-o", options, "start"], check=True, stdout=subprocess.DEVNULL)
    try:
        url = f"postgresql+psycopg://postgres@/postgres?host={home}"
        schema.upgrade(url)
        yield url
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(home)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database at the newest schema."""
    if request.param == "sqlite":
        file = tmp_path / "queue.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        return f"sqlite:///{file}"
    server: str = request.getfixturevalue("postgres_server")
    engine = create_engine(server)
    with engine.begin() as connection:
        names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    engine.dispose()
    return server


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
