"""One saved value as an array: its dtype, its own dimensions, and which of them differ in length. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, prod
from typing import Any

from ndif_batch.errors import UsageError
from ndif_batch.graph.abstract import ITEM_BYTES


def stored_dtype(source_dtype: str) -> str:
    """How Zarr keeps a torch dtype: bfloat16 widened without loss, bool as 0 and 1 so that a sentinel has room."""
    return {"bfloat16": "float32", "bool": "uint8"}.get(source_dtype, source_dtype)


def sentinel(dtype: str) -> float | int:
    """What stands where nothing was saved: NaN, the least integer, or the greatest of an unsigned type."""
    if dtype.startswith("float"):
        return nan
    bits = 8 * ITEM_BYTES[dtype]
    return (1 << bits) - 1 if dtype.startswith("u") else -(1 << (bits - 1))


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One saved value: ``dims`` and ``shape`` are its own, without the axes; ``shape`` is the longest of any task.

    ``dtype`` is numpy's name as stored, ``source_dtype`` torch's name as saved. ``ragged`` are the positions in
    ``dims`` whose length differs between tasks.
    """

    name: str
    dtype: str
    source_dtype: str
    dims: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    ragged: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES or self.dtype in ("bfloat16", "bool"):
            raise UsageError(f"save {self.name!r}: dtype {self.dtype!r} cannot be stored")
        if len(self.dims) != len(self.shape) or len(set(self.dims)) < len(self.dims):
            raise UsageError(f"save {self.name!r}: dimensions {self.dims} do not name the shape {self.shape}")
        if not set(self.ragged) <= set(range(len(self.dims))):
            raise UsageError(f"save {self.name!r}: ragged {self.ragged} are not among {len(self.dims)} dimensions")

    @classmethod
    def saved(
        cls,
        name: str,
        source_dtype: str,
        shape: Sequence[int] = (),
        dims: Sequence[str] | None = None,
        ragged: Sequence[int] = (),
    ) -> ArraySpec:
        """The array for a save of a torch dtype; dimensions without names are called ``<save>_<number>``."""
        named = tuple(f"{name}_{k}" for k in range(len(shape))) if dims is None else tuple(dims)
        return cls(name, stored_dtype(source_dtype), source_dtype, named, tuple(shape), tuple(ragged))

    @property
    def bytes_per_task(self) -> int:
        """Bytes of one task's value, before compression."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def lengths(self) -> dict[str, int]:
        """The coordinates that hold lengths → the own dimension they measure; empty when nothing is ragged."""
        if len(self.ragged) == 1:
            return {f"{self.name}_length": self.ragged[0]}
        return {f"{self.name}_{self.dims[own]}_length": own for own in self.ragged}

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "source_dtype": self.source_dtype,
            "dims": list(self.dims),
            "shape": list(self.shape),
            "ragged": list(self.ragged),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArraySpec:
        """The inverse of :meth:`to_json`."""
        dims, shape, ragged = (tuple(data[key]) for key in ("dims", "shape", "ragged"))
        return cls(data["name"], data["dtype"], data["source_dtype"], dims, shape, ragged)
