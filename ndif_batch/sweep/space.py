"""The parameter space of a job: axes and constants; one point of it is one task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from ndif_batch.errors import SweepError
from ndif_batch.graph.nodes import Inputs, TensorRef, Value
from ndif_batch.graph.serialize import inputs_from_json, inputs_to_json

if TYPE_CHECKING:
    import numpy as np

Excluded: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of the space. Several parameters in ``columns`` vary together along it (``zip``, prompt pairs)."""

    name: str
    columns: Mapping[str, Sequence[Value]]

    def __post_init__(self) -> None:
        lengths = {param: len(values) for param, values in self.columns.items()}
        if not lengths or 0 in lengths.values():
            raise SweepError(f"axis {self.name!r} has no values")
        if len(set(lengths.values())) > 1:
            raise SweepError(f"axis {self.name!r} ties parameters of different lengths: {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether the points at these places run: ``places`` on some axes by name, anywhere on the others."""

    runs: bool
    places: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Space:
    """Axes in order (the first varies slowest) and parameters that never vary. Task ids count points in C order.

    Every point runs that no rule speaks of; of the ``rules`` that do the last one counts.
    """

    axes: tuple[Axis, ...] = ()
    constants: Mapping[str, Value] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        names = [param for axis in self.axes for param in axis.columns] + list(self.constants)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SweepError(f"parameter {twice[0]!r} is given twice")
        axis_names = [axis.name for axis in self.axes]
        if len(set(axis_names)) < len(axis_names):
            raise SweepError(f"two axes have the same name: {axis_names}")
        for rule in self.rules:
            for name, places in rule.places.items():
                if name not in axis_names or not _are_within(places, self._length(name)):
                    raise SweepError(f"a rule speaks of places of axis {name!r} that are not there")

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of tasks."""
        return prod(self.shape)

    @property
    def params(self) -> tuple[str, ...]:
        """Every parameter that the space binds."""
        return (*(param for axis in self.axes for param in axis.columns), *self.constants)

    def tensors(self) -> set[str]:
        """Digests of the constant tensors that tasks bind."""
        columns = [values for axis in self.axes for values in axis.columns.values()]
        bound = chain(self.constants.values(), *(values for values in columns if not isinstance(values, range)))
        found: set[str] = set()
        for value in bound:
            if isinstance(value, TensorRef):
                found.add(value.digest)
            elif isinstance(value, Inputs):
                found.update(value.digests.values())
        return found

    def point(self, task: int) -> tuple[int, ...]:
        """Position of a task along each axis."""
        shape = self.shape
        if not 0 <= task < prod(shape):
            raise SweepError(f"task {task} is outside the space of {self.size} tasks")
        where = []
        for length in reversed(shape):
            task, along = divmod(task, length)
            where.append(along)
        return tuple(reversed(where))

    def bindings(self, task: int) -> dict[str, Value]:
        """What a task binds to each parameter."""
        self.point(task)
        return next(self.all_bindings((task,)))

    def all_bindings(self, tasks: Iterable[int]) -> Iterator[dict[str, Value]]:
        """What each of some tasks of the space binds to each parameter."""
        columns = []
        stride = self.size
        for axis in self.axes:
            stride //= len(axis)
            columns += [(param, values, stride, len(axis)) for param, values in axis.columns.items()]
        for task in tasks:
            bound = dict(self.constants)
            for param, values, stride, length in columns:
                bound[param] = values[task // stride % length]
            yield bound

    def excluded(self) -> Excluded | None:
        """For each task, by number, whether it does not run; None if all do."""
        if not self.rules:
            return None
        import numpy as np

        skipped = np.zeros(self.shape, dtype=np.bool_)
        for rule in self.rules:
            places = [rule.places.get(axis.name, range(len(axis))) for axis in self.axes]
            skipped[np.ix_(*(np.asarray(one, dtype=np.int64) for one in places))] = not rule.runs
        return skipped.reshape(-1)

    def _length(self, name: str) -> int:
        return next(len(axis) for axis in self.axes if axis.name == name)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back. Ranges stay ranges."""
        rules = [
            {"runs": rule.runs, "places": {axis: _column_to_json(places) for axis, places in rule.places.items()}}
            for rule in self.rules
        ]
        return {
            "axes": [
                {"name": axis.name, "columns": {p: _column_to_json(values) for p, values in axis.columns.items()}}
                for axis in self.axes
            ],
            "constants": {param: value_to_json(value) for param, value in self.constants.items()},
            **({"rules": rules} if rules else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """The inverse of :meth:`to_json`."""
        axes = tuple(
            Axis(axis["name"], {p: _column_from_json(values) for p, values in axis["columns"].items()})
            for axis in data["axes"]
        )
        rules = tuple(
            Rule(rule["runs"], {axis: _places_from_json(places) for axis, places in rule["places"].items()})
            for rule in data.get("rules", ())
        )
        return cls(axes, {param: value_from_json(value) for param, value in data["constants"].items()}, rules)


def value_to_json(value: Value) -> Any:
    """A bound value as JSON: token ids as a list, a tensor as ``{"tensor": digest}``, a prompt as in a graph."""
    if isinstance(value, Inputs):
        return inputs_to_json(value)
    if isinstance(value, TensorRef):
        return {"tensor": value.digest}
    return list(value) if isinstance(value, tuple) else value


def value_from_json(data: Any) -> Value:
    """The inverse of :func:`value_to_json`."""
    if isinstance(data, dict):
        return inputs_from_json(data, "a prompt") if "inputs" in data else TensorRef(data["tensor"])
    if isinstance(data, list):
        return tuple(data)
    value: Value = data
    return value


def _column_to_json(values: Sequence[Value]) -> Any:
    if isinstance(values, range):
        return {"range": [values.start, values.stop, values.step]}
    return [value_to_json(value) for value in values]


def _are_within(places: Sequence[int], length: int) -> bool:
    ends = (places[0], places[-1]) if isinstance(places, range) and places else places
    return all(0 <= place < length for place in ends)


def _places_from_json(data: Any) -> Sequence[int]:
    return range(*data["range"]) if isinstance(data, dict) else tuple(data)


def _column_from_json(data: Any) -> Sequence[Value]:
    if isinstance(data, dict):
        return range(*data["range"])
    return [value_from_json(value) for value in data]
