"""Who may do what: scopes of roles and tokens, and the text of a token. No SQL here."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from ndif_batch.errors import NotAllowedError, UsageError
from ndif_batch.queue.cluster import Role

USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}")
"""What can be a user's name: it is also that of a directory."""

TOKEN = re.compile(r"ndif_([0-9]{1,18})_([A-Za-z0-9_-]{43})")
"""A token: its number, and 256 random bits."""


class Scope(StrEnum):
    """What a token opens."""

    READ = "read"
    """Look at jobs and results."""
    WRITE = "write"
    """Submit jobs, and change one's own."""
    WORK = "work"
    """Be a worker: lease and commit anybody's shards."""
    ADMIN = "admin"
    """Change anybody's jobs, users, models, pilots and pauses."""
    LOGIN = "login"
    """Be exchanged, once, for a session of a browser; opens nothing else."""


SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.ADMIN: frozenset({Scope.READ, Scope.WRITE, Scope.WORK, Scope.ADMIN}),
    Role.USER: frozenset({Scope.READ, Scope.WRITE}),
    Role.READER: frozenset({Scope.READ}),
    Role.WORKER: frozenset({Scope.WORK}),
}
SESSION_LASTS = timedelta(hours=12)
"""How long a browser stays logged in."""

SEES_ALL = (Role.ADMIN, Role.READER)
"""Roles that look at what belongs to others: people who run the cluster."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A user's token, of which nobody keeps the text. ``scopes`` beyond those of the user's role open nothing."""

    id: int
    user: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as it was made; ``text`` is told this once, and empty for who asks again under the same key."""

    record: TokenRecord
    text: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what their token opens, until when."""

    user: str
    role: Role
    scopes: frozenset[Scope]
    expires_at: datetime | None = None

    @property
    def sees_all(self) -> bool:
        """Whether jobs of others are there for the caller."""
        return Scope.READ in self.scopes and self.role in SEES_ALL

    def may(self, scope: Scope) -> bool:
        """Whether the caller's token opens ``scope``."""
        return scope in self.scopes

    def require(self, scope: Scope) -> None:
        """``NotAllowedError`` unless :meth:`may`."""
        if not self.may(scope):
            raise NotAllowedError(
                f"{self.user!r} may not do this: it needs the scope {scope.value!r}",
                hint=f"the role {self.role.value!r} and this token open {', '.join(sorted(self.scopes)) or 'nothing'}",
            )


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def token_text(token_id: int, secret: str) -> str:
    """What a user gets."""
    return f"ndif_{token_id}_{secret}"


def parse_token(text: str) -> tuple[int, str] | None:
    """Number and secret of a token; None for what cannot be one."""
    match = TOKEN.fullmatch(text)
    return (int(match[1]), match[2]) if match else None


def secret_digest(secret: str) -> str:
    """What is stored of a secret. It is random and long, so that one round of SHA-256 is enough."""
    return sha256(secret.encode()).hexdigest()


def check_user_name(name: str) -> None:
    """``UsageError`` for what cannot be a user's name."""
    if not USER.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a user", hint="letters, digits, and _ . @ + - inside; at most 100")
