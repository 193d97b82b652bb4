"""Tokens of users: made once, stored as digests, looked up by their number and compared in constant time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from hmac import compare_digest

from sqlalchemy import RowMapping, insert, select, update

from ndif_batch.errors import NotAuthenticatedError, NotFoundError, UsageError
from ndif_batch.queue import users
from ndif_batch.queue.access import (
    SCOPES,
    SESSION_LASTS,
    Caller,
    NewToken,
    Scope,
    TokenRecord,
    new_secret,
    parse_token,
    secret_digest,
    token_text,
)
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind
from ndif_batch.queue.tables import token
from ndif_batch.queue.transitions import record

NOBODY = "0" * 64
"""Compared with when there is no such token, so that this takes as long."""

LONGEST_DAYS = 36_500.0

CODE_LASTS = timedelta(minutes=10)
CODE, SESSION = "login code", "browser session"


def create(
    tx: Transaction, user: str, name: str, scopes: Iterable[Scope] | None, expires_days: float | None, actor: str
) -> NewToken:
    """A token with ``scopes``, all of the user's role if None, that expires in so many days, if ever.

    ``NotFoundError`` for an unknown user; ``UsageError`` for scopes that the role does not have, or a wrong time.
    """
    role = users.get(tx, user).role
    opened = SCOPES[role] if scopes is None else frozenset(scopes)
    if not opened or opened - SCOPES[role]:
        wanted, known = (", ".join(sorted(scopes)) for scopes in (opened, SCOPES[role]))
        message = f"a token of the {role.value} {user!r} cannot open {wanted or 'nothing'}"
        raise UsageError(message, hint=f"it can open {known}")
    if expires_days is not None and not 0 < expires_days <= LONGEST_DAYS:
        raise UsageError(f"a token cannot expire in {expires_days:g} days")
    expires_at = None if expires_days is None else tx.now + timedelta(days=expires_days)
    return _insert(tx, user, name, opened, expires_at, actor)


def create_code(tx: Transaction, user: str, scopes: Iterable[Scope] | None) -> NewToken:
    """A code that :func:`exchange` takes once, for a session with ``scopes``, all of the user's role if None."""
    opened = SCOPES[users.get(tx, user).role] if scopes is None else frozenset(scopes)
    return _insert(tx, user, CODE, {*opened, Scope.LOGIN}, tx.now + CODE_LASTS, user)


def exchange(tx: Transaction, text: str) -> NewToken:
    """A session for a code, which opens nothing from now on; ``NotAuthenticatedError`` for any other token."""
    code = _found(tx, text)
    here = (token.c.id == code.id) & token.c.revoked_at.is_(None)
    claimed = update(token).where(here).values(revoked_at=tx.now)
    if Scope.LOGIN not in code.scopes or not tx.connection.execute(claimed).rowcount:
        raise NotAuthenticatedError("this is no code for a login", hint="ask for one: ndif-batch dashboard")
    opened = frozenset(code.scopes) - {Scope.LOGIN}
    return _insert(tx, code.user, SESSION, opened, tx.now + SESSION_LASTS, code.user)


def get(tx: Transaction, token_id: int) -> TokenRecord:
    """One token; ``NotFoundError`` if there is none."""
    row = tx.connection.execute(select(token).where(token.c.id == token_id)).mappings().one_or_none()
    if row is None:
        raise NotFoundError(f"there is no token {token_id}")
    return _record(row)


def every(tx: Transaction, user: str | None, limit: int | None, after: int) -> list[TokenRecord]:
    """All tokens, of one user if given, oldest first; ``after`` is the id to go on from."""
    query = select(token).where(token.c.id > after).order_by(token.c.id).limit(limit)
    if user is not None:
        query = query.where(token.c.user == user)
    return [_record(row) for row in tx.connection.execute(query).mappings()]


def revoke(tx: Transaction, found: TokenRecord, actor: str) -> None:
    """Let a token open nothing any more; one that is revoked stays so."""
    here = (token.c.id == found.id) & token.c.revoked_at.is_(None)
    if tx.connection.execute(update(token).where(here).values(revoked_at=tx.now)).rowcount:
        record(tx, EventKind.TOKEN_REVOKED, actor, {"user": found.user, "token": found.id})


def authenticate(tx: Transaction, text: str) -> Caller:
    """Who calls with this token; ``NotAuthenticatedError`` that tells a stranger nothing about the tokens there are."""
    found = _found(tx, text)
    if Scope.LOGIN in found.scopes:
        raise NotAuthenticatedError("this is a code for a login, not a token")
    role = users.get(tx, found.user).role
    return Caller(found.user, role, SCOPES[role].intersection(found.scopes), found.expires_at)


def _found(tx: Transaction, text: str) -> TokenRecord:
    """The token of this text, neither expired nor revoked."""
    token_id, secret = parse_token(text) or (0, "")
    row = tx.connection.execute(select(token).where(token.c.id == token_id)).mappings().one_or_none()
    if not compare_digest(secret_digest(secret), row["digest"] if row is not None else NOBODY) or row is None:
        raise NotAuthenticatedError("the token is not valid", hint="ask an administrator for one")
    found = _record(row)
    if found.revoked_at is not None:
        raise NotAuthenticatedError(f"token {found.id} is revoked", hint="ask an administrator for another")
    if found.expires_at is not None and found.expires_at <= tx.now:
        raise NotAuthenticatedError(f"token {found.id} has expired", hint="ask an administrator for another")
    return found


def _insert(
    tx: Transaction, user: str, name: str, scopes: Iterable[Scope], expires_at: datetime | None, actor: str
) -> NewToken:
    secret, opened = new_secret(), sorted(scopes)
    row = {
        "user": user,
        "name": name,
        "digest": secret_digest(secret),
        "scopes": opened,
        "created_at": tx.now,
        "created_by": actor,
        "expires_at": expires_at,
    }
    made = _record(tx.connection.execute(insert(token).values(row).returning(token)).mappings().one())
    record(tx, EventKind.TOKEN_CREATED, actor, {"user": user, "token": made.id, "scopes": opened})
    return NewToken(made, token_text(made.id, secret))


def _record(row: RowMapping) -> TokenRecord:
    fields = {name: value for name, value in row.items() if name != "digest"}
    return TokenRecord(**fields | {"scopes": tuple(Scope(scope) for scope in row["scopes"])})
