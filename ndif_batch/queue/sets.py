"""Sets of ids and of rows as one parameter: a statement that is built once serves any number of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    JSON,
    ColumnElement,
    Dialect,
    FromClause,
    FunctionElement,
    String,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import Boolean, TypeEngine

from ndif_batch.queue.database import Transaction


class _Members(TypeDecorator[Collection[Any]]):
    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Collection[Any] | None, dialect: Dialect) -> str:
        members = sorted(value or ())
        return json.dumps(members) if dialect.name == "sqlite" else f"{{{','.join(map(_element, members))}}}"


def _element(member: int | str) -> str:
    """How PostgreSQL writes a member of an array."""
    if isinstance(member, int):
        return str(member)
    escaped = member.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class _is_one_of(FunctionElement[bool]):  # noqa: N801 -- a function of SQL
    type = Boolean()
    inherit_cache = True

    def self_group(self, against: OperatorType | None = None) -> _is_one_of:
        """As it is: SQLite would compare it with 1 and use no index."""
        return self


@compiles(_is_one_of, "postgresql")
def _on_postgresql(element: _is_one_of, compiler: SQLCompiler, **options: Any) -> str:
    one, members = (compiler.process(part, **options) for part in element.clauses)
    kind = "VARCHAR" if isinstance(next(iter(element.clauses)).type, String) else "BIGINT"
    return f"{one} = ANY (CAST({members} AS {kind}[]))"


@compiles(_is_one_of, "sqlite")
def _on_sqlite(element: _is_one_of, compiler: SQLCompiler, **options: Any) -> str:
    one, members = (compiler.process(part, **options) for part in element.clauses)
    return f"{one} IN (SELECT value FROM json_each({members}))"


def is_one_of(one: ColumnElement[Any], name: str = "ids") -> ColumnElement[bool]:
    """``one``, a number or a text, is among those that the parameter ``name`` lists."""
    return _is_one_of(one, bindparam(name, type_=_Members))


class Form(NamedTuple):
    """How a statement is given its rows; ``one`` is a single row: a database plans for many what it cannot count."""

    dialect: str
    one: bool


def asked(tx: Transaction, name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Form, dict[str, Any]]:
    """The form in which a statement is :func:`given` these rows, and its parameters."""
    form = Form(tx.connection.dialect.name, len(rows) == 1)
    if form.one:
        return form, {f"{name}_{column}": value for column, value in rows[0].items()}
    return form, {f"{name}_rows": rows}


def given(form: Form, name: str, /, **columns: TypeEngine[Any]) -> FromClause:
    """Rows that are parameters, in the form that :func:`asked` tells of the same ``name``."""
    if form.one:
        single = {one: cast(bindparam(f"{name}_{one}", type_=kind), _kept(kind)) for one, kind in columns.items()}
        return select(*(value.label(one) for one, value in single.items())).subquery(name)
    rows = bindparam(f"{name}_rows", type_=JSON)
    if form.dialect == "postgresql":
        typed = [column(one, kind) for one, kind in columns.items()]
        return func.json_to_recordset(rows).table_valued(*typed).render_derived(name, with_types=True)
    each = func.json_each(rows).table_valued("value")
    parts = [func.json_extract(each.c.value, f"$.{one}", type_=kind).label(one) for one, kind in columns.items()]
    return select(*parts).subquery(name)


def _kept(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type to cast a value to: SQLite would cast what is written in JSON to a number."""
    return Text().with_variant(kind, "postgresql") if isinstance(kind, JSON) else kind


def locked(table: Table, rows: FromClause, *rules: ColumnElement[bool]) -> CTE:
    """Those of ``rows`` for which ``table`` has one by ``rules``, whose ``key`` this adds: locked in the order of keys.

    An UPDATE that joins it by key waits for nobody out of order.
    """
    key = next(iter(table.primary_key))
    found = select(key.label("key"), *rows.c).join_from(table, rows, rules[0]).where(*rules[1:]).order_by(key)
    return found.with_for_update(key_share=True, of=table).cte(f"locked_{table.name}")
