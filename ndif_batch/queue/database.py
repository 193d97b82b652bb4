"""Connections and transactions: SQLite or PostgreSQL by URL, and the time as the database tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError

from ndif_batch.errors import SettingsError, UnavailableError
from ndif_batch.queue.columns import Instant

Clock: TypeAlias = Callable[[], datetime]

BUSY_SECONDS = 30.0
"""How long a SQLite writer waits for another one."""

_CLOCK = {
    "sqlite": select(func.strftime("%Y-%m-%d %H:%M:%f000", "now", type_=Instant)),
    "postgresql": select(func.clock_timestamp(type_=Instant)),
}


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction and the moment it began."""

    connection: Connection
    now: datetime

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that may say what to do ``on_conflict``."""
        return postgresql.insert(table) if self.connection.dialect.name == "postgresql" else sqlite.insert(table)

    def insert_new(self, table: Table, row: Mapping[str, Any]) -> int | None:
        """Insert ``row`` unless a unique key forbids it; the first primary key column, None if it was there."""
        statement = self.insert(table).values(**row).on_conflict_do_nothing()
        found: int | None = self.connection.scalar(statement.returning(next(iter(table.primary_key))))
        return found


class Database:
    """A pool of connections to one URL; usable from many threads, not across ``fork``."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = parse(url)
        self._clock = clock
        self._writer = _engine(self.url)
        self._reader = self._writer.execution_options(begin="BEGIN")

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that may change rows; all of it happens or none. SQLite admits one writer at a time."""
        with self._translated(), self._writer.begin() as connection:
            yield Transaction(connection, self._now(connection))

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that only reads; it never waits for a writer."""
        with self._translated(), self._reader.begin() as connection:
            yield Transaction(connection, self._now(connection))

    def close(self) -> None:
        """Close every pooled connection."""
        self._writer.dispose()

    def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        value: datetime = connection.execute(_CLOCK[connection.dialect.name]).scalar_one()
        return value

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if isinstance(error, OperationalError | InterfaceError) or type(error) is DatabaseError:
                raise unavailable(self.url, error) from error
            raise


def parse(url: str) -> URL:
    """The parsed URL; ``SettingsError`` unless it is a SQLite file or a PostgreSQL database."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError(f"database_url {url!r} is no database URL", hint="sqlite:////path/queue.db") from None
    backend = parsed.get_backend_name()
    if backend not in _CLOCK:
        raise SettingsError(f"database_url: {backend!r} is not supported", hint="use sqlite or postgresql+psycopg")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SettingsError("database_url: the queue needs a SQLite file, not memory", hint="sqlite:////path/queue.db")
    return parsed


def sqlite_file(url: URL) -> Path | None:
    """Where a SQLite database lies; None for a server."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def unavailable(url: URL, error: DBAPIError) -> UnavailableError:
    """A database error as one readable line, without the password."""
    reason = str(error.orig).strip().splitlines()[0]
    return UnavailableError(f"the queue at {url.render_as_string(hide_password=True)} cannot serve: {reason}")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        try:
            return create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            hint = "pip install 'ndif-batch[postgres]' and write postgresql+psycopg://"
            raise UnavailableError(
                f"the driver of {url.drivername} is not installed: {error.name}", hint=hint
            ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.create_function("power", 2, pow, deterministic=True)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))
