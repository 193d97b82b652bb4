"""Which points of a space run: what ``exclude`` takes out and ``include`` adds, as rules over places on axes."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from itertools import product

from ndif_batch.errors import nearest
from ndif_batch.graph.nodes import Value
from ndif_batch.sweep.config import ExperimentConfig, Some, SomeRange, SomeValues
from ndif_batch.sweep.marked import Document, Location
from ndif_batch.sweep.rows import cell
from ndif_batch.sweep.space import Axis, Rule, Space

MOST_POINTS = 2**26
"""A space of more points has no exceptions: each of its points is looked at."""

Wanted = Mapping[str, list[Value]]


def with_rules(space: Space, config: ExperimentConfig, document: Document) -> Space:
    """``space`` with the points of ``include``, for which its axes may grow, and without those of ``exclude``.

    A point of ``include`` has, of an axis that it does not name, every value that the file gives it.
    """
    if not config.exclude and not config.include:
        return space
    excluded, included = _Reading(space, document), _Growing(space, document)
    excludes = [Rule(False, excluded.places(entry, ("exclude", i))) for i, entry in enumerate(config.exclude or ())]
    includes = [Rule(True, included.places(entry, ("include", i))) for i, entry in enumerate(config.include or ())]
    outside = [
        Rule(False, {old.name: range(len(old), len(new))})
        for old, new in zip(space.axes, included.axes, strict=True)
        if len(new) > len(old)
    ]
    found = Space(tuple(included.axes), space.constants, (*outside, *excludes, *includes))
    at = ("exclude",) if config.exclude else ("include",)
    if found.size > MOST_POINTS:
        raise document.error(f"of {found.size:,} points none can be an exception; of {MOST_POINTS:,} they can", at)
    skipped = found.excluded()
    if skipped is not None and skipped.all():
        raise document.error("no point of the sweep is left", at)
    return found


class _Reading:
    """Finds the points of an entry in a space."""

    def __init__(self, space: Space, document: Document) -> None:
        self.axes = list(space.axes)
        self._space = space
        self._document = document

    def places(self, entry: Mapping[str, Some], at: Location) -> dict[str, Sequence[int]]:
        """Where on the axes that it names the points of an entry lie."""
        return {self.axes[number].name: self._matching(number, wanted, at) for number, wanted in self._named(entry, at)}

    def _named(self, entry: Mapping[str, Some], at: Location) -> Iterator[tuple[int, dict[str, list[Value]]]]:
        """The axes that an entry names, with the values that it names of their parameters."""
        owner = {name: number for number, axis in enumerate(self._space.axes) for name in axis.columns}
        found: dict[int, dict[str, list[Value]]] = {}
        for name, some in entry.items():
            if name in self._space.constants:
                raise self._document.error("the parameter never varies", (*at, name), hint="make it a list to vary it")
            if name not in owner:
                raise self._document.error(f"no parameter {name!r} varies", (*at, name), hint=nearest(name, owner))
            found.setdefault(owner[name], {})[name] = self._values(some, (*at, name))
        yield from found.items()

    def _values(self, some: Some, at: Location) -> list[Value]:
        if isinstance(some, SomeValues):
            return [cell(value) for value in some.values]
        if not isinstance(some, SomeRange):
            return [cell(some)]
        if len(some.range) == 3 and some.range[2] == 0:
            raise self._document.error("the step must not be 0", at)
        if not range(*some.range):
            raise self._document.error(f"the range {some.range} is empty", at, hint="the stop is not included")
        return list(range(*some.range))

    def _matching(self, number: int, wanted: Wanted, at: Location, hint: str | None = None) -> Sequence[int]:
        """The places on an axis that have one of the values of each parameter."""
        axis = self.axes[number]
        found: Collection[int] = range(len(axis))
        for name, values in wanted.items():
            keys = {_key(value): value for value in values}
            column = axis.columns[name]
            here = [place for place in found if _key(column[place]) in keys]
            lacking = keys.keys() - {_key(value) for value in column}
            if lacking:
                value = next(keys[key] for key in keys if key in lacking)
                raise self._document.error(f"no point has {value!r}", (*at, name), hint=hint or _nearest(value, column))
            found = here
        if not found:
            raise self._document.error(f"no point has these values of {' and '.join(wanted)} together", at, hint=hint)
        return _as_range(found)


class _Growing(_Reading):
    """Finds the points of an entry, and adds values that are not there at the ends of the axes."""

    def places(self, entry: Mapping[str, Some], at: Location) -> dict[str, Sequence[int]]:
        """Where on every axis the points of an entry lie."""
        found: dict[str, Sequence[int]] = {axis.name: range(len(axis)) for axis in self._space.axes}
        for number, wanted in self._named(entry, at):
            axis = self.axes[number]
            whole = wanted.keys() == axis.columns.keys()
            if whole:
                found[axis.name] = self._added(number, wanted)
            else:
                lacking = ", ".join(name for name in axis.columns if name not in wanted)
                found[axis.name] = self._matching(number, wanted, at, hint=f"a new point gives {lacking}, too")
        return found

    def _added(self, number: int, wanted: Wanted) -> Sequence[int]:
        axis = self.axes[number]
        rows = list(zip(*axis.columns.values(), strict=True))
        known = {tuple(map(_key, row)): place for place, row in reversed(list(enumerate(rows)))}
        places: list[int] = []
        new: list[tuple[Value, ...]] = []
        for row in product(*(wanted[name] for name in axis.columns)):
            key = tuple(map(_key, row))
            if key not in known:
                known[key] = len(rows) + len(new)
                new.append(row)
            places.append(known[key])
        if new:
            columns = {name: [*old, *(row[k] for row in new)] for k, (name, old) in enumerate(axis.columns.items())}
            self.axes[number] = Axis(axis.name, columns)
        return _as_range(set(places))


def _as_range(places: Collection[int]) -> Sequence[int]:
    """Places that follow each other as a range, which a job's row holds in a few bytes."""
    if isinstance(places, range):
        return places
    ascending = sorted(places)
    whole = range(ascending[0], ascending[-1] + 1)
    return whole if len(whole) == len(ascending) else ascending


def _key(value: Value) -> Hashable:
    """Equal for equal values: 1 is 1.0, but not true."""
    return (bool, value) if isinstance(value, bool) else str(value) if value != value else value


def _nearest(value: Value, column: Sequence[Value]) -> str:
    """The value of a column that is nearest to one that it lacks, or what to write for several values."""
    if isinstance(value, tuple) and not any(isinstance(one, tuple) for one in column):
        return f"several values are {{values: {list(value)}}}"
    numbers = [one for one in column if isinstance(one, int | float) and not isinstance(one, bool)]
    if isinstance(value, int | float) and not isinstance(value, bool) and numbers:
        near = min(numbers, key=lambda one: abs(one - value))
        return f"the nearest is {near!r}, in {min(numbers)!r} to {max(numbers)!r}"
    return nearest(str(value), map(str, column))
