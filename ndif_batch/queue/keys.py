"""Idempotency keys: what a caller has asked under one is done once, and its first answer is kept for a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select, update

from ndif_batch.errors import ConflictError, KeyReusedError
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.tables import keyed_request

KEPT = timedelta(hours=24)
"""How long a key stands for its request after that was answered."""

LOST = timedelta(minutes=10)
"""A request without an answer after so long died with its server."""

SWEPT = 100
"""So many keys whose time is over are forgotten whenever one is claimed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A key's request: whether it was carried out before, and what it gave then, as JSON, if that is kept."""

    id: int
    answered: bool = False
    answer: str | None = None


def claim(tx: Transaction, caller: str, key: str, fingerprint: str) -> Claim:
    """The request of this ``fingerprint`` under a caller's key: a new one, or the one that was answered.

    ``KeyReusedError`` if the key stands for another request, ``ConflictError`` while this one is being carried out.
    """
    _sweep(tx)
    mine = (keyed_request.c.caller == caller) & (keyed_request.c.key == key)
    tx.connection.execute(delete(keyed_request).where(mine, keyed_request.c.until <= tx.now))
    row = {"caller": caller, "key": key, "fingerprint": fingerprint, "answered": False, "until": tx.now + LOST}
    new = tx.insert_new(keyed_request, row)
    if new is not None:
        return Claim(new)
    found = tx.connection.execute(select(keyed_request).where(mine)).one_or_none()
    if found is not None and found.fingerprint != fingerprint:
        raise KeyReusedError(f"the key {key!r} was used for another request", hint="choose another key")
    if found is None or not found.answered:
        raise ConflictError(f"the request of key {key!r} is being carried out", hint="ask again when it has ended")
    return Claim(found.id, True, found.answer)


def keep(tx: Transaction, claimed: Claim, answer: str | None) -> None:
    """The request was carried out; keep what it gave."""
    values = {"answered": True, "answer": answer, "until": tx.now + KEPT}
    tx.connection.execute(update(keyed_request).where(keyed_request.c.id == claimed.id).values(values))


def forget(tx: Transaction, claimed: Claim) -> None:
    """The request was not carried out: its key is free."""
    tx.connection.execute(delete(keyed_request).where(keyed_request.c.id == claimed.id))


def _sweep(tx: Transaction) -> None:
    """Forget keys whose time is over, but for those that another transaction forgets now."""
    over = select(keyed_request.c.id).where(keyed_request.c.until <= tx.now).order_by(keyed_request.c.until)
    found = over.limit(SWEPT).with_for_update(skip_locked=True)
    tx.connection.execute(delete(keyed_request).where(keyed_request.c.id.in_(found)))
