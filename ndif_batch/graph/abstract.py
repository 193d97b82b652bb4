"""Abstract values: what is known of a node's value before it is computed (shapes, dtypes, plain numbers)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

ITEM_BYTES = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
}


@dataclass(frozen=True, slots=True)
class AbstractTensor:
    """A tensor of which only shape and dtype (torch's name without ``torch.``) are known."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the elements."""
        return self.size * ITEM_BYTES[self.dtype]


Abstract: TypeAlias = "AbstractTensor | tuple[Abstract, ...] | bool | int | float | str | None"
