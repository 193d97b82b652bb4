"""Spaces of one axis, on which several parameters vary together: zipped, listed, or drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ndif_batch.graph.nodes import Value
from ndif_batch.sweep.config import Cell
from ndif_batch.sweep.distributions import IntUniform, LogUniform, Normal, Uniform
from ndif_batch.sweep.draws import chosen, drawn, numbers
from ndif_batch.sweep.marked import Document
from ndif_batch.sweep.rows import cell
from ndif_batch.sweep.space import Axis

POINT_AXIS = "point"
"""The one axis of a zipped, listed or drawn space."""

Columns = dict[str, Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Draws ``samples`` points; ``seed`` and a parameter's name decide its values, whatever else is drawn."""

    samples: int
    seed: int

    def of(self, name: str, kind: Uniform | LogUniform | IntUniform | Normal) -> Sequence[Value]:
        """A parameter's values."""
        return drawn(kind, numbers(self.samples, name, self.seed))

    def of_rows(self, columns: Mapping[str, Sequence[Value]], probabilities: Sequence[float] | None = None) -> Columns:
        """Rows out of columns of one length; parameters that are tied stay so."""
        places = numbers(self.samples, ",".join(columns), self.seed)
        rows = chosen(len(next(iter(columns.values()))), probabilities, places)
        return {name: [values[row] for row in rows] for name, values in columns.items()}


def sampled(
    columns: Columns, axes: Sequence[Axis], sampling: Sampling, names: Sequence[tuple[str, ...]], document: Document
) -> Axis:
    """The axis of drawn points: ``columns`` that are drawn already, and the values of ``axes`` to choose from.

    ``names`` are the parameters in the order of the file.
    """
    found = dict(columns)
    for axis in axes:
        found |= sampling.of_rows(axis.columns)
    given = [name for tied in names for name in tied]
    _check_twice(given, document)
    if not found:
        raise document.error("method random draws nothing: every parameter is a constant", ("parameters",))
    return Axis(POINT_AXIS, {name: found[name] for name in given if name in found})


def zipped(axes: Sequence[Axis], document: Document) -> Axis:
    """The axis along which all that varies varies together."""
    lengths = {axis.name: len(axis) for axis in axes}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise document.error(f"method zip needs lists of one length: {told}", ("parameters",))
    _check_twice([name for axis in axes for name in axis.columns], document)
    return Axis(POINT_AXIS, {name: values for axis in axes for name, values in axis.columns.items()})


def listed(points: Sequence[Mapping[str, Cell]], document: Document) -> Axis:
    """The axis of points that are written one by one."""
    names = tuple(points[0])
    if not names:
        raise document.error("a point binds at least one parameter", ("parameters", 0))
    for i, point in enumerate(points):
        if set(point) != set(names):
            raise document.error(
                f"every point binds the same parameters: {', '.join(names)}; this one {', '.join(point) or 'none'}",
                ("parameters", i),
            )
    return Axis(POINT_AXIS, {name: [cell(point[name]) for point in points] for name in names})


def _check_twice(names: Sequence[str], document: Document) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise document.error(f"parameter {twice!r} is given twice", ("parameters",))
