"""Connections and transactions: SQLite or PostgreSQL by URL, and the time as the database tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    RootTransaction,
    Table,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError

from ndif_batch.errors import SettingsError, UnavailableError

Clock: TypeAlias = Callable[[], datetime]

BUSY_SECONDS = 30.0
"""How long a SQLite writer waits for another one."""

SEEN_BEFORE_PREPARED = 1
"""A statement of PostgreSQL is parsed and planned for its connection when it is sent the second time."""

BACKENDS = ("sqlite", "postgresql")

_BEGIN_POSTGRESQL = "SELECT clock_timestamp(); BEGIN"
"""One journey for the time and the beginning of a transaction."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction and the moment it began; ``why`` is what its author says of it.

    ``ended`` are the jobs that it has ended.
    """

    connection: Connection
    now: datetime
    why: str | None = None
    ended: list[int] = field(default_factory=list)

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that may say what to do ``on_conflict``."""
        return upsert(self.connection.dialect.name, table)

    def insert_new(self, table: Table, row: Mapping[str, Any]) -> int | None:
        """Insert ``row`` unless a unique key forbids it; the first primary key column, None if it was there."""
        statement = self.insert(table).values(**row).on_conflict_do_nothing()
        found: int | None = self.connection.scalar(statement.returning(next(iter(table.primary_key))))
        return found


def upsert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that may say what to do ``on_conflict``."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


class Database:
    """A pool of connections to one URL; usable from many threads, not across ``fork``."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = parse(url)
        self._clock = clock
        self._writer = _engine(self.url)
        self._reader = self._writer.execution_options(begin="BEGIN")
        self.why: str | None = None

    def because(self, why: str | None) -> Database:
        """The same database, whose events tell why they happened."""
        other = copy(self)
        other.why = why
        return other

    def write(self) -> AbstractContextManager[Transaction]:
        """A transaction that may change rows; all of it happens or none. SQLite admits one writer at a time."""
        return self._transaction(self._writer)

    def read(self) -> AbstractContextManager[Transaction]:
        """A transaction that only reads; it never waits for a writer."""
        return self._transaction(self._reader)

    def close(self) -> None:
        """Close every pooled connection."""
        self._writer.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Transaction]:
        with self._translated():
            connection, begun, now = _begin_anew(engine)
            with connection, begun:
                yield Transaction(connection, now if self._clock is None else self._clock(), self.why)

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
    if backend not in BACKENDS:
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
            return create_engine(
                url,
                isolation_level="AUTOCOMMIT",
                connect_args={"options": _options(url), "prepare_threshold": SEEN_BEFORE_PREPARED},
            )
        except ModuleNotFoundError as error:
            hint = "pip install 'ndif-batch[postgres]' and write postgresql+psycopg://"
            raise UnavailableError(
                f"the driver of {url.drivername} is not installed: {error.name}", hint=hint
            ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _options(url: URL) -> str:
    """Statements are planned once a connection and not each time anew: none does better for its values."""
    return f"{url.query.get('options', '')} -c plan_cache_mode=force_generic_plan".strip()


def _begin_anew(engine: Engine) -> tuple[Connection, RootTransaction, datetime]:
    """Begin a transaction; a pooled connection that its server has closed meanwhile is replaced."""
    try:
        return _begin(engine.connect())
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
    return _begin(engine.connect())


def _begin(connection: Connection) -> tuple[Connection, RootTransaction, datetime]:
    """Begin a transaction, and ask what time it is; SQLite's clock is that of its process."""
    try:
        begun = connection.begin()
        if connection.dialect.name == "sqlite":
            return connection, begun, datetime.now(UTC)
        told: datetime = connection.exec_driver_sql(_BEGIN_POSTGRESQL).scalar_one()
        return connection, begun, told.astimezone(UTC)
    except BaseException:
        connection.close()
        raise


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.create_function("power", 2, pow, deterministic=True)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))
