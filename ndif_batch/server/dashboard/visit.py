"""One request of somebody who is logged in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from ndif_batch.errors import UsageError
from ndif_batch.queue.access import Caller, Scope
from ndif_batch.server.access import CallerQueue


@dataclass(frozen=True, slots=True)
class Visit:
    """What a page reads from: the queue as its visitor may see it, and what they ask for."""

    request: Request
    queue: CallerQueue

    @property
    def me(self) -> Caller:
        """Who visits."""
        return self.queue.caller

    @property
    def is_admin(self) -> bool:
        """Whether they may change what belongs to all."""
        return self.me.may(Scope.ADMIN)

    @property
    def may_act(self) -> bool:
        """Whether they may change jobs of their own."""
        return self.me.may(Scope.WRITE)

    def asked(self, name: str) -> str | None:
        """A word of the query; None if it is empty or not there."""
        return self.request.query_params.get(name, "").strip() or None

    def number(self, name: str, most: int = 2**63 - 1) -> int | None:
        """A whole number of the query; ``UsageError`` for what is none."""
        text = self.asked(name)
        if text is None:
            return None
        if not text.isdecimal() or int(text) > most:
            raise UsageError(f"{name} is a number and cannot be {text!r}")
        return int(text)

    def at(self, name: str) -> Any:
        """A part of the path."""
        return self.request.path_params[name]
