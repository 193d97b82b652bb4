"""From what a user asks to be reduced to what the archive keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ndif_batch.archive import ArraySpec, ReducedSpec, ReduceOp, read_arrays
from ndif_batch.archive.grid import Grid
from ndif_batch.errors import SweepError, UsageError, nearest
from ndif_batch.queue.records import JobRecord
from ndif_batch.sweep.reduction import Reduction
from ndif_batch.sweep.space import Space

KEY = "reduce"

LARGE = 2**28
"""Bytes of what all shards keep together that call for shards of more tasks."""

_ADAPTER: TypeAdapter[dict[str, Reduction]] = TypeAdapter(dict[str, Reduction])


def read_reductions(data: Mapping[str, Any]) -> dict[str, Reduction]:
    """What a sweep file has under ``reduce``, from plain data; ``SweepError`` names the key that is wrong."""
    if all(isinstance(one, Reduction) for one in data.values()):
        return dict(data)
    try:
        return _ADAPTER.validate_python(dict(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, (KEY, *first["loc"])))
        raise SweepError(first["msg"].replace("Input should be", "must be"), key=where) from None


def reductions_to_json(reductions: Mapping[str, Reduction]) -> dict[str, Any] | None:
    """The inverse of :func:`read_reductions`; None if there are none."""
    return {name: one.model_dump(exclude_none=True) for name, one in reductions.items()} or None


def reductions_of(job: JobRecord) -> tuple[ReducedSpec, ...]:
    """What a job reduces."""
    return read_arrays(job.arrays)[1]


def reduced_specs(
    reductions: Mapping[str, Reduction], saves: Sequence[ArraySpec], space: Space
) -> tuple[ReducedSpec, ...]:
    """What is kept; ``SweepError`` whose key begins with ``reduce`` for what cannot be reduced so."""
    by_name = {array.name: array for array in saves}
    axes = [axis.name for axis in space.axes]
    found = []
    for name, one in reductions.items():
        source = one.save or name
        if source not in by_name:
            raise SweepError(
                f"the experiment saves nothing called {source!r}",
                key=f"{KEY}.{name}" + (".save" if one.save else ""),
                hint=nearest(source, by_name),
            )
        try:
            found.append(
                ReducedSpec.named(name, by_name[source], ReduceOp(one.op), one.axes, axes, k=one.k or 0, ddof=one.ddof)
            )
        except UsageError as error:
            raise SweepError(error.message, key=f"{KEY}.{name}", hint=error.hint) from None
    return tuple(found)


def partials_fit(reduced: Sequence[ReducedSpec], space: Space, tile: tuple[int, ...]) -> bool:
    """Whether what the shards of this tile keep together is little: otherwise fewer, larger shards keep less."""
    tasks, axes = Grid(space.shape, tile), [axis.name for axis in space.axes]
    return sum(8 * one.state_size * prod(one.grid(tasks, axes).shape) for one in reduced) <= LARGE
