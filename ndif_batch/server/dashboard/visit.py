"""One request of somebody who is logged in."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from ndif_batch.errors import NotFoundError, UsageError
from ndif_batch.queue.access import Caller, Scope
from ndif_batch.queue.records import JobRecord
from ndif_batch.server.access import CallerQueue
from ndif_batch.server.dashboard.form import LONGEST_NUMBER


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

    def number(self, name: str) -> int | None:
        """A whole number of the query; ``UsageError`` for what is none."""
        text = self.asked(name)
        if text is None:
            return None
        if not text.isdecimal() or len(text) > LONGEST_NUMBER:
            raise UsageError(f"{name} is a number and cannot be {text!r}")
        return int(text)

    def job(self) -> JobRecord:
        """The job of the path; ``NotFoundError`` if they may not see it or there is none."""
        number: int = self.request.path_params["job"]
        if number >= 10**LONGEST_NUMBER:
            raise NotFoundError(f"there is no job {number}")
        return self.queue.job(number)
