"""What users have leased and what they have used: counted with each lease and charged when shards end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Float,
    Integer,
    String,
    Update,
    bindparam,
    case,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from ndif_batch.queue import controls
from ndif_batch.queue.cluster import FREE, Cost
from ndif_batch.queue.columns import Instant, seconds_from
from ndif_batch.queue.database import Transaction, upsert
from ndif_batch.queue.sets import Form, asked, given, locked
from ndif_batch.queue.tables import usage, user
from ndif_batch.queue.together import Write


@dataclass(frozen=True, slots=True)
class Bill:
    """How many shards and tokens more a user has leased, and what those cost that ended."""

    shards: int
    tokens: int
    cost: Cost = FREE


def ended(shards: Sequence[tuple[int, Cost]]) -> Bill:
    """For shards of so many tokens each that are not leased any more."""
    return Bill(-len(shards), -sum(tokens for tokens, _ in shards), Cost.total(cost for _, cost in shards))


def serving(tx: Transaction, bills: Mapping[str, Bill]) -> list[Write]:
    """Users that were just leased something wait anew."""
    form, rows = asked(tx, "billed", _rows(bills))
    return [Write(_serving, form, {**rows, "now": tx.now})]


def settling(tx: Transaction, bills: Mapping[str, Bill]) -> list[Write]:
    """Count what users have leased, and what they have used: in this hour, and of what decays."""
    form, rows = asked(tx, "billed", _rows(bills))
    writes = [Write(_settling, form, {**rows, "now": tx.now})]
    charged = [{"user": name, **asdict(bill.cost)} for name, bill in sorted(bills.items()) if bill.cost != FREE]
    if charged:
        form, rows = asked(tx, "charged", charged)
        hour = tx.now.replace(minute=0, second=0, microsecond=0)
        writes.append(Write(_charging, form, {**rows, "full_hour": hour}))
    return writes


def still_used() -> ColumnElement[float]:
    """What of a user's GPU-seconds still counts at ``now``: :func:`ndif_batch.scheduling.policy.decayed` in SQL."""
    hours = seconds_from(user.c.used_at, bindparam("now", type_=Instant)) / 3600.0
    past = case((user.c.used_at.is_(None), 0.0), (hours < 0, 0.0), else_=hours)
    return user.c.used * func.power(0.5, past / controls.half_life(), type_=Float)


def _rows(bills: Mapping[str, Bill]) -> list[dict[str, Any]]:
    """``spent`` only by those who are charged."""
    return [
        {
            "who": name,
            "shards": bill.shards,
            "tokens": bill.tokens,
            "spent": None if bill.cost == FREE else bill.cost.gpu_seconds,
        }
        for name, bill in sorted(bills.items())
    ]


def _serving(form: Form, turn: ColumnElement[bool]) -> Update:
    return _counting(_billed(form, turn), served_at=bindparam("now", type_=Instant))


def _settling(form: Form, turn: ColumnElement[bool]) -> Update:
    rows, now = _billed(form, turn), bindparam("now", type_=Instant)
    charged = rows.c.spent.is_not(None)
    used = case((charged, still_used() + rows.c.spent), else_=user.c.used)
    return _counting(rows, used=used, used_at=case((charged, now), else_=user.c.used_at))


def _billed(form: Form, turn: ColumnElement[bool]) -> CTE:
    rows = given(form, "billed", who=String(), shards=Integer(), tokens=BigInteger(), spent=Float())
    return locked(user, rows, user.c.name == rows.c.who, turn)


def _counting(rows: CTE, **values: Any) -> Update:
    counts = {
        "leased_shards": user.c.leased_shards + rows.c.shards,
        "leased_tokens": user.c.leased_tokens + rows.c.tokens,
    }
    return update(user).where(user.c.name == rows.c.key).values(**counts, **values).returning(user.c.name)


def _charging(form: Form, turn: ColumnElement[bool]) -> postgresql.Insert | sqlite.Insert:
    sums: dict[str, TypeEngine[Any]] = {"gpu_seconds": Float(), "tokens": BigInteger(), "shared_tokens": BigInteger()}
    rows = given(form, "charged", user=String(), **sums)
    hour = bindparam("full_hour", type_=Instant)
    insert = upsert(form.dialect, usage).from_select(
        ["user", "hour", *sums], select(rows.c.user, hour, *(rows.c[name] for name in sums)).where(turn)
    )
    more = {name: usage.c[name] + insert.excluded[name] for name in sums}
    return insert.on_conflict_do_update(index_elements=[usage.c.user, usage.c.hour], set_=more)
