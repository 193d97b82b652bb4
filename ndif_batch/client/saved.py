"""What one job saves as a tensor that another binds: named before it is known, read when the other begins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ndif_batch.archive import ArraySpec, read_arrays
from ndif_batch.errors import NotFoundError, UsageError, nearest
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.nodes import TensorRef, Value
from ndif_batch.queue.records import JobRecord, Json
from ndif_batch.sweep.space import Axis, Space

OPTION = "saved"
"""The option of a job that says which tensors it takes from which jobs: digest → job and save."""


@dataclass(frozen=True, slots=True)
class SavedRef(TensorRef):
    """The array ``save`` of job number ``job``, whole. The digest is of all that decides its content."""

    job: int
    save: str = field()  # nnsight gives every object an attribute `save`, which would be its default
    shape: tuple[int, ...]
    dtype: str

    def to_json(self) -> Json:
        """Where it is from, as a job keeps it."""
        return {"job": self.job, "save": self.save}


def saved_ref(job: int, identity: str | None, space: Json, seed: int, arrays: list[Json], save: str) -> SavedRef:
    """What a job of this content saves under a name.

    The digest is the same for every job that saves the same: what was computed with it is found again.
    ``NotFoundError`` if it saves nothing of that name, ``UsageError`` for what is not of one shape.
    """
    plain, reduced = read_arrays(arrays)
    axes = {axis.name: len(axis) for axis in Space.from_json(space).axes}
    found: dict[str, tuple[ArraySpec, tuple[str, ...]]] = {array.name: (array, ()) for array in plain}
    found |= {one.name: (one.result, one.axes) for one in reduced}
    if save not in found:
        whose = f"job {job}" if job else "that phase"
        raise NotFoundError(f"{whose} saves nothing called {save!r}", hint=nearest(save, found))
    array, over = found[save]
    if array.ragged:
        raise UsageError(f"{save!r} is not of one length in all tasks and cannot be bound", hint="reduce it, or a part")
    shape = (*(length for name, length in axes.items() if name not in over), *array.shape)
    whole = [identity or job, space, seed, next(one for one in arrays if one["name"] == save)]
    digest = blake2b(json.dumps(whole, sort_keys=True).encode(), digest_size=32).hexdigest()
    return SavedRef(digest, job, save, shape, array.source_dtype)


def of_job(record: JobRecord, save: str) -> SavedRef:
    """What a submitted job saves under a name."""
    return saved_ref(record.id, record.identity, record.space, record.seed, record.arrays, save)


def taken(space: Space) -> tuple[Space, dict[str, SavedRef]]:
    """A space with plain tensors in the places of those that other jobs save, and these by digest."""
    found: dict[str, SavedRef] = {}

    def plain(value: Value) -> Value:
        if not isinstance(value, SavedRef):
            return value
        found[value.digest] = value
        return TensorRef(value.digest)

    changed = each(space, plain)
    return (changed if found else space), found


def with_saved(space: Space, refs: Mapping[str, SavedRef]) -> Space:
    """The inverse of :func:`taken`."""

    def saved(value: Value) -> Value:
        return refs.get(value.digest, value) if isinstance(value, TensorRef) else value

    return each(space, saved) if refs else space


def each(space: Space, change: Callable[[Value], Value]) -> Space:
    """A space with every value that it binds changed."""

    def column(values: Sequence[Value]) -> Sequence[Value]:
        return values if isinstance(values, range) else [change(value) for value in values]

    axes = (Axis(axis.name, {name: column(v) for name, v in axis.columns.items()}) for axis in space.axes)
    return Space(tuple(axes), {name: change(value) for name, value in space.constants.items()}, space.rules)


def abstract(refs: Iterable[SavedRef]) -> dict[str, AbstractTensor]:
    """What is known of their values."""
    return {ref.digest: AbstractTensor(ref.shape, ref.dtype) for ref in refs}


def from_json(data: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Which job and save each digest stands for, of the option of a job."""
    return {digest: (one["job"], one["save"]) for digest, one in data.items()}
