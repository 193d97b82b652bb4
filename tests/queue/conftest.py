"""One queue a test, on each database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ndif_batch.queue import schema
from ndif_batch.queue.store import Queue
from ndif_batch.queue.tables import metadata
from tests.queue import postgres
from tests.queue.queue_samples import MODEL, check_sums

pytest.register_assert_rewrite(
    "tests.queue.conformance_leases", "tests.queue.conformance_outcomes", "tests.queue.conformance_repeats"
)


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
def postgres_server() -> Iterator[str]:
    """The URL of a migrated database on a server of its own."""
    with postgres.server("fsync=off") as url:
        schema.upgrade(url)
        yield url


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
