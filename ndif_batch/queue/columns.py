"""How columns, checks and indexes are written for both databases."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Enum,
    Float,
    FunctionElement,
    Index,
    Integer,
    TypeDecorator,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

BigId = BigInteger().with_variant(Integer, "sqlite")


class Instant(TypeDecorator[datetime]):
    """A moment in UTC. SQLite, which knows no zones, keeps it as text that sorts by time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store as UTC, without a zone where the database has none."""
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read back as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class seconds_from(FunctionElement[float]):  # noqa: N801 -- a function of SQL
    """``seconds_from(earlier, later)``; SQLite counts milliseconds."""

    type = Float()
    inherit_cache = True


@compiles(seconds_from, "postgresql")
def _seconds_on_postgresql(element: seconds_from, compiler: SQLCompiler, **options: Any) -> str:
    earlier, later = (compiler.process(one, **options) for one in element.clauses)
    return f"date_part('epoch', CAST({later} AS TIMESTAMPTZ) - {earlier})"


@compiles(seconds_from, "sqlite")
def _seconds_on_sqlite(element: seconds_from, compiler: SQLCompiler, **options: Any) -> str:
    earlier, later = (compiler.process(one, **options) for one in element.clauses)
    return f"((julianday({later}) - julianday({earlier})) * 86400.0)"


def enum_of(kind: type[StrEnum], length: int) -> Enum:
    """A column type that holds the values of ``kind`` as text."""
    return Enum(kind, native_enum=False, length=length, values_callable=lambda e: [member.value for member in e])


def among(column: str, members: Iterable[StrEnum]) -> str:
    """The rule that ``column`` holds one of ``members``, as SQL text."""
    return f"{column} IN ({', '.join(repr(member.value) for member in sorted(members))})"


def check(name: str, rule: str) -> CheckConstraint:
    """A CHECK constraint of its table."""
    return CheckConstraint(text(rule), name=name)


def count(name: str, **options: Any) -> Column[int]:
    """A number that starts at zero."""
    return Column(name, Integer, nullable=False, server_default=text("0"), **options)


def partial_index(name: str, rule: str, *columns: ColumnElement[Any]) -> None:
    """An index over the rows of which ``rule`` is true."""
    Index(name, *columns, sqlite_where=text(rule), postgresql_where=text(rule))
