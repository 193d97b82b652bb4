"""What is kept of a save in place of every task's value: a statistic over axes of the tasks. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any

from ndif_batch.archive.arrays import ArraySpec
from ndif_batch.archive.grid import Grid
from ndif_batch.errors import UsageError, nearest

LARGEST_STATE = 2**30
"""Bytes of what one shard may hold for one place of the axes that stay."""


class ReduceOp(StrEnum):
    """The statistics. ``gram`` is XᵀX, ``cov`` the same of what is centred, divided by the count."""

    MEAN = "mean"
    SUM = "sum"
    VAR = "var"
    STD = "std"
    COV = "cov"
    GRAM = "gram"
    COUNT = "count"
    MIN = "min"
    MAX = "max"
    TOPK = "topk"


SQUARES = (ReduceOp.COV, ReduceOp.GRAM)
CENTRED = (ReduceOp.VAR, ReduceOp.STD, ReduceOp.COV)
CHOSEN = (ReduceOp.MIN, ReduceOp.MAX, ReduceOp.TOPK)
"""Whose results are values of tasks, as they were saved."""


@dataclass(frozen=True, slots=True)
class ReducedSpec:
    """The result ``name``: ``op`` over what tasks save as ``source``.

    It goes over the parameter axes ``axes`` and over the positions ``own`` in the save's own dimensions; the others
    stay. ``k`` is how many ``topk`` keeps; ``ddof`` is taken from the count where deviations are averaged.
    """

    name: str
    source: ArraySpec
    op: ReduceOp
    axes: tuple[str, ...]
    own: tuple[int, ...] = ()
    k: int = 0
    ddof: int = 0

    def __post_init__(self) -> None:
        kept = [at for at in self.source.ragged if at not in self.own]
        if kept and self.op is not ReduceOp.COUNT:
            dim = self.source.dims[kept[0]]
            raise UsageError(
                f"{self.source.name!r} is not equally long along {dim!r} in all tasks, so there is no {self.op} of it",
                hint=f"reduce over {dim!r} too (axis: [{', '.join((*self.axes, dim))}]), or save one position",
            )
        if (self.op is ReduceOp.TOPK) != (self.k > 0):
            raise UsageError("topk needs k, the number of values to keep; no other op has one")
        if self.ddof and self.op not in CENTRED:
            raise UsageError(f"ddof belongs to {', '.join(CENTRED)}; {self.op} divides by nothing of the kind")
        if self.op in SQUARES and not self._kept():
            raise UsageError(f"{self.op} needs vectors; a task saves a single number", hint="use var, or mean")
        if self.state_size * 8 > LARGEST_STATE:
            raise UsageError(
                f"{self.op} of {self.source.name!r} keeps {self.state_size:,} numbers at a time, "
                f"more than {LARGEST_STATE // 8:,}",
                hint="save a smaller part of the value",
            )

    @classmethod
    def named(
        cls, name: str, source: ArraySpec, op: ReduceOp, names: Sequence[str], axes: Sequence[str], **more: int
    ) -> ReducedSpec:
        """The reduction over ``names``, each one of the parameter ``axes`` or of the save's own dimensions."""
        own = {dim: at for at, dim in enumerate(source.dims)}
        own |= {dim.removeprefix(f"{source.name}_"): at for dim, at in own.items() if dim not in axes}
        known = [*axes, *(dim for dim in own if dim not in axes)]
        for one in names:
            if one not in known:
                raise UsageError(f"there is no axis {one!r} to reduce over", hint=nearest(one, known))
        if len(set(names)) < len(names):
            raise UsageError("an axis is named twice")
        of_tasks = tuple(one for one in axes if one in names)
        if not of_tasks:
            raise UsageError(
                "a reduction goes over at least one axis of the parameters",
                hint=f"axes: {', '.join(axes)}; within a task let the graph reduce" if axes else "there is one task",
            )
        return cls(name, source, op, of_tasks, tuple(sorted(own[one] for one in names if one not in axes)), **more)

    def _kept(self) -> list[int]:
        """The positions of the save's own dimensions that stay."""
        if self.op is ReduceOp.COUNT:
            return []
        return [at for at in range(len(self.source.dims)) if at not in self.own]

    @property
    def over(self) -> tuple[str, ...]:
        """All that it goes over: axes, then dimensions of the save's own."""
        return (*self.axes, *(self.source.dims[at] for at in self.own))

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """What one observation is like: the save's own shape without what is reduced."""
        return tuple(self.source.shape[at] for at in self._kept())

    @property
    def dims(self) -> tuple[str, ...]:
        """The result's own dimensions, after the parameter axes that stay."""
        kept = tuple(self.source.dims[at] for at in self._kept())
        if self.op in SQUARES:
            return (*kept, f"{kept[-1]}_2")
        return (*kept, f"{self.name}_rank") if self.op is ReduceOp.TOPK else kept

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of :attr:`dims`."""
        kept = self.kept_shape
        if self.op in SQUARES:
            return (*kept, kept[-1])
        return (*kept, self.k) if self.op is ReduceOp.TOPK else kept

    @property
    def result(self) -> ArraySpec:
        """The result as an array: sums and what follows from them in float64, values of tasks in their own dtype."""
        if self.op is ReduceOp.COUNT:
            return ArraySpec(self.name, "int64", "int64")
        if self.op in CHOSEN:
            return ArraySpec(self.name, self.source.dtype, self.source.source_dtype, self.dims, self.shape)
        source = self.source.source_dtype if "float" in self.source.source_dtype else "float64"
        return ArraySpec(self.name, "float64", source, self.dims, self.shape)

    @property
    def count(self) -> str | None:
        """The array that tells of how many observations the result is; None if the result is that."""
        return None if self.op is ReduceOp.COUNT else f"{self.name}_count"

    @property
    def places(self) -> dict[str, str]:
        """Where along each reduced dimension the values of ``topk`` come from: array → dimension."""
        if self.op is not ReduceOp.TOPK:
            return {}
        return {f"{self.name}_{dim}": dim for dim in self.over}

    @property
    def partial(self) -> str:
        """The array in which each shard keeps what it has seen."""
        return f"{self.name}_partial"

    @property
    def names(self) -> tuple[str, ...]:
        """Every array that it makes in the archive."""
        count = () if self.count is None else (self.count,)
        return (self.name, *count, *self.places, self.partial)

    @property
    def fields(self) -> dict[str, tuple[int, ...]]:
        """What is kept of the observations of one shard, all float64: name → shape."""
        kept, square = self.kept_shape, self.shape
        found: dict[str, tuple[int, ...]] = {"count": ()}
        match self.op:
            case ReduceOp.MEAN | ReduceOp.SUM:
                found["sum"] = kept
            case ReduceOp.VAR | ReduceOp.STD:
                found |= {"mean": kept, "squares": kept}
            case ReduceOp.COV:
                found |= {"mean": kept, "squares": square}
            case ReduceOp.GRAM:
                found["squares"] = square
            case ReduceOp.MIN | ReduceOp.MAX:
                found["value"] = kept
            case ReduceOp.TOPK:
                found |= {"value": (self.k, *kept), "observation": (self.k, *kept)}
            case ReduceOp.COUNT:
                pass
        return found

    @property
    def state_size(self) -> int:
        """Numbers that a shard keeps for each place of the axes that stay."""
        return sum(map(prod, self.fields.values()))

    def grid(self, tasks: Grid, axes: Sequence[str]) -> Grid:
        """The places of the partial array: of a reduced axis one for each tile, of the others as of the ``tasks``."""
        return tasks.reduced([at for at, name in enumerate(axes) if name in self.axes])

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back: the result as an array, and what it is made of."""
        how = {"op": self.op.value, "axes": list(self.axes), "own": list(self.own), "k": self.k, "ddof": self.ddof}
        return {**self.result.to_json(), "reduce": {**how, "source": self.source.to_json()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReducedSpec:
        """The inverse of :meth:`to_json`."""
        how = data["reduce"]
        source = ArraySpec.from_json(how["source"])
        return cls(
            data["name"], source, ReduceOp(how["op"]), tuple(how["axes"]), tuple(how["own"]), how["k"], how["ddof"]
        )
