"""How far what tasks saved is from what they save alone: the largest deviation of each array. Pure data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_NAMED = 100
SHOWN_TASKS = 10


@dataclass(frozen=True, slots=True)
class Deviation:
    """The largest of one save, and the task that has it; ``relative`` to the largest value of that task's tensor."""

    save: str = field()  # nnsight gives every object an attribute `save`, which would be its default
    task: int
    absolute: float
    relative: float


@dataclass(frozen=True, slots=True)
class Verified:
    """``tasks`` were run again alone. ``deviations`` has the largest of each save; ``deviating`` tasks are further off
    than rounding explains, or failed where they save alone, or the other way round: the first ``MOST_NAMED``.
    """

    tasks: int = 0
    deviations: tuple[Deviation, ...] = ()
    deviating: tuple[int, ...] = ()

    def __add__(self, other: Verified) -> Verified:
        """Both together; the same twice counts its tasks twice and changes nothing else."""
        largest: dict[str, Deviation] = {}
        for one in (*self.deviations, *other.deviations):
            if one.save not in largest or (one.relative, one.absolute) > _size(largest[one.save]):
                largest[one.save] = one
        deviating = sorted({*self.deviating, *other.deviating})[:MOST_NAMED]
        return Verified(self.tasks + other.tasks, tuple(largest[name] for name in sorted(largest)), tuple(deviating))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        largest = {
            one.save: {"task": one.task, "absolute": one.absolute, "relative": one.relative} for one in self.deviations
        }
        return {"tasks": self.tasks, "deviations": largest, "deviating": list(self.deviating)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verified:
        """The inverse of :meth:`to_json`."""
        found = tuple(Deviation(save, **one) for save, one in data["deviations"].items())
        return cls(data["tasks"], found, tuple(data["deviating"]))


def merged(checks: Iterable[Verified]) -> Verified:
    """All of them together."""
    return sum(checks, Verified())


def in_words(found: Verified) -> str:
    """How many tasks were run again, and which of them differ by more than rounding explains."""
    if not found.tasks:
        return "no task was run again alone"
    largest = max((one.relative for one in found.deviations), default=0.0)
    if not found.deviating:
        tasks = "1 task run again alone is" if found.tasks == 1 else f"{found.tasks} tasks run again alone are"
        return f"{tasks} the same, but for rounding (up to {largest:.2g})"
    named = ", ".join(map(str, found.deviating[:SHOWN_TASKS]))
    more = ", …" if len(found.deviating) > SHOWN_TASKS else ""
    return f"of {found.tasks} tasks run again alone these deviate by more than rounding explains: {named}{more}"


def _size(one: Deviation) -> tuple[float, float]:
    return one.relative, one.absolute
