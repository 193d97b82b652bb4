"""Which task of an earlier job does the same as a task of a new one, found axis by axis from their values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ndif_batch.graph.nodes import Graph, Value
from ndif_batch.graph.operations import RANDOM
from ndif_batch.sweep.space import Space
from ndif_batch.sweep.task import SEED_AXIS

NONE = -1

Places = np.ndarray[Any, np.dtype[np.int64]]


class _Table(NamedTuple):
    """For each point of some ``axes`` of the new space the place on one axis of the old, times its ``stride``."""

    axes: tuple[int, ...]
    places: Places
    stride: int


class Matching:
    """Finds equal tasks of two jobs of one ``graph`` and, if it draws random numbers, of one seed.

    Equal tasks bind equal values of equal types: ``1`` is not ``1.0``. The work is that of the axes' lengths, not of
    the number of tasks, unless an old axis ties what several new ones vary.
    """

    def __init__(self, graph: Graph, new: Space, old: Space) -> None:
        self._shape = new.shape
        self._tables: list[_Table] = []
        self._numbered = False
        names = set(graph.params)
        if draws(graph):
            seeded = [SEED_AXIS in space.params for space in (new, old)]
            self._numbered = not any(seeded)
            names |= {SEED_AXIS} if any(seeded) else set()
        self._possible = all(names <= set(space.params) for space in (new, old))
        if self._possible:
            self._tables = list(_tables(names, new, old))

    def old_tasks(self, tasks: Sequence[int] | Places) -> Places:
        """The old task that equals each of ``tasks``, or ``NONE``."""
        numbers = np.asarray(tasks, dtype=np.int64)
        found = np.zeros(len(numbers), dtype=np.int64)
        if not self._possible:
            return found + NONE
        points = np.unravel_index(numbers, self._shape) if self._shape else ()
        there = np.ones(len(numbers), dtype=np.bool_)
        for table in self._tables:
            places = table.places[tuple(points[axis] for axis in table.axes)]
            there &= places != NONE
            found += places * table.stride
        if self._numbered:  # then a task's number is what its random numbers come from
            there &= found == numbers
        return np.where(there, found, NONE)


def draws(graph: Graph) -> bool:
    """Whether what a task saves may depend on its seed."""
    return any(node.op in RANDOM for node in graph.nodes)


def _tables(names: set[str], new: Space, old: Space) -> Iterable[_Table]:
    for i, axis in enumerate(old.axes):
        columns = {name: values for name, values in axis.columns.items() if name in names}
        if columns:
            yield _table(columns, new, prod(old.shape[i + 1 :]))
    for name, value in old.constants.items():
        if name in names:
            yield _table({name: (value,)}, new, 0)


def _table(columns: Mapping[str, Sequence[Value]], new: Space, stride: int) -> _Table:
    owner = {name: i for i, axis in enumerate(new.axes) for name in axis.columns}
    axes = tuple(sorted({owner[name] for name in columns if name in owner}))
    old_rows = list(zip(*(_keys(values) for values in columns.values()), strict=True))
    first = {row: place for place, row in reversed(list(enumerate(old_rows)))}
    shape = tuple(new.shape[axis] for axis in axes)
    places = np.empty(prod(shape), dtype=np.int64)
    for j, row in enumerate(_rows(columns, new, owner, axes)):
        same = j < len(old_rows) and old_rows[j] == row  # of equal values the one in the same place
        places[j] = j if same else first.get(row, NONE)
    return _Table(axes, places.reshape(shape), stride)


def _rows(
    names: Iterable[str], new: Space, owner: Mapping[str, int], axes: tuple[int, ...]
) -> Iterable[tuple[Hashable, ...]]:
    """What the parameters ``names`` are bound to at each point of ``axes`` of the new space."""
    columns = []
    for name in names:
        varies = name in owner
        values = new.axes[owner[name]].columns[name] if varies else (new.constants[name],)
        columns.append((_keys(values), axes.index(owner[name]) if varies else None))
    for point in product(*(range(new.shape[axis]) for axis in axes)):
        yield tuple(keys[0 if axis is None else point[axis]] for keys, axis in columns)


def _keys(values: Iterable[Value]) -> list[Hashable]:
    """Values such that equal keys mean the same value of the same type; NaN equals itself, -0.0 is not 0.0."""
    return [(type(value), value.hex() if isinstance(value, float) else value) for value in values]
