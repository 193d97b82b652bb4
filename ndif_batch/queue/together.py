"""Writes in a row, as one statement where the database can: each would be a journey, and time to begin and to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import CTE, ColumnElement, Insert, Row, Select, Update, func, select, true

from ndif_batch.queue.database import Transaction
from ndif_batch.queue.sets import Form

Statement: TypeAlias = Update | Insert
Build: TypeAlias = Callable[[Form, ColumnElement[bool]], Statement]


class Write(NamedTuple):
    """``build(form, turn)`` makes its statement, which does nothing before it is its ``turn``."""

    build: Build
    form: Form
    parameters: Mapping[str, Any]


def together(tx: Transaction, writes: Sequence[Write]) -> Sequence[Row[Any]]:
    """Carry out writes of which none reads what another changes; the rows of the first that returns some.

    A write locks rows after all those before it that return some. Parameters of one name have one value.
    """
    if tx.connection.dialect.name == "postgresql":
        parameters = {name: value for write in writes for name, value in write.parameters.items()}
        statement = _as_one(tuple((write.build, write.form) for write in writes))
        return tx.connection.execute(statement, parameters).all()
    every = [carry_out(tx, write) for write in writes]
    return next((rows for rows in every if rows), ())


def carry_out(tx: Transaction, write: Write) -> Sequence[Row[Any]]:
    """One write alone; the rows that it returns."""
    result = tx.connection.execute(_alone(write.build, write.form), write.parameters)
    return result.all() if result.returns_rows else ()


@cache
def _alone(build: Build, form: Form) -> Statement:
    return build(form, true())


@cache
def _as_one(kinds: Sequence[tuple[Build, Form]]) -> Select[Any]:
    """PostgreSQL carries out what a WITH holds in any order, but for what a part reads of another."""
    parts: list[CTE] = []
    turn: ColumnElement[bool] = true()
    for number, (build, form) in enumerate(kinds):
        part = build(form, turn).cte(f"write_{number}")
        if part.c:
            turn = select(func.count()).select_from(part).scalar_subquery() >= 0
        parts.append(part)
    answer = next(part for part in parts if part.c)
    return select(*answer.c).add_cte(*parts)
