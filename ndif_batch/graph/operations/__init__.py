"""The closed table of operations: everything that a graph can say, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ndif_batch.graph.operations.algebra import ALGEBRA
from ndif_batch.graph.operations.boundary import BOUNDARY
from ndif_batch.graph.operations.creation import CREATION
from ndif_batch.graph.operations.elementwise import ELEMENTWISE
from ndif_batch.graph.operations.indexing import INDEXING
from ndif_batch.graph.operations.joining import JOINING
from ndif_batch.graph.operations.layout import LAYOUT
from ndif_batch.graph.operations.operation import Kind, Operation
from ndif_batch.graph.operations.reductions import REDUCTIONS

__all__ = ["FAMILIES", "OPERATIONS", "RANDOM", "Kind", "Operation"]

FAMILIES: Final[Mapping[str, tuple[Operation, ...]]] = MappingProxyType(
    {
        "Model and results": BOUNDARY,
        "Elementwise": ELEMENTWISE,
        "Reductions, scans and order": REDUCTIONS,
        "Shape and order of dimensions": LAYOUT,
        "Cutting, joining and moving": JOINING,
        "Indexing": INDEXING,
        "Linear algebra, normalisation and losses": ALGEBRA,
        "Creation": CREATION,
    }
)

OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType(
    {operation.name: operation for family in FAMILIES.values() for operation in family}
)

RANDOM: Final = frozenset(name for name, operation in OPERATIONS.items() if operation.random)
"""Operations whose equal nodes have different values."""
