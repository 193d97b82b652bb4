"""What a form of the dashboard sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ndif_batch.errors import UsageError
from ndif_batch.queue.routes import LONGEST_REASON

LONGEST_NUMBER = 18
"""Digits of the longest number of a job."""


@dataclass(frozen=True, slots=True)
class Form:
    """Its fields by name; ``UsageError`` for a field that is not what an action needs."""

    fields: Mapping[str, Sequence[str]]

    @property
    def reason(self) -> str | None:
        """Why somebody does it; None if they do not say."""
        return self.text("reason", "")[:LONGEST_REASON] or None

    def text(self, name: str, default: str | None = None) -> str:
        """A field without the spaces around it; one without ``default`` must be there."""
        found = (self.fields.get(name) or [""])[0].strip()
        if not found and default is None:
            raise UsageError(f"{name} is missing")
        return found or default or ""

    def whole(self, name: str) -> int:
        """A whole number."""
        try:
            return int(self.text(name))
        except ValueError:
            raise UsageError(f"{name} is a whole number and cannot be {self.text(name)!r}") from None

    def number(self, name: str) -> float:
        """A number."""
        try:
            return float(self.text(name))
        except ValueError:
            raise UsageError(f"{name} is a number and cannot be {self.text(name)!r}") from None

    def whole_or_none(self, name: str) -> int | None:
        """A whole number; None for an empty field."""
        return self.whole(name) if self.text(name, "") else None

    def wholes(self, name: str) -> list[int]:
        """All whole numbers of a name, at least one."""
        given = self.fields.get(name, ())
        if not given or not all(one.isdecimal() and len(one) <= LONGEST_NUMBER for one in given):
            raise UsageError(f"no {name} was chosen")
        return [int(one) for one in given]
