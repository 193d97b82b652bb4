"""What an operation is: a signature, a kind, a rule for the result's shape and a rule for its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.operations.costs import elementwise
from ndif_batch.graph.signatures import Signature, parse_signature

MAX_ELEMENTS = 2**30
MAX_DIMENSIONS = 32

Rule: TypeAlias = Callable[..., Abstract]
Price: TypeAlias = Callable[[Mapping[str, Any], Abstract], int]


class Kind(StrEnum):
    """Which part of the engine executes an operation."""

    BOUNDARY = "boundary"
    APPLY = "apply"
    CONTROL = "control"
    PURE = "pure"
    OUT = "out"


@dataclass(frozen=True)
class Operation(Signature):
    """One row of the table.

    ``rule`` takes the arguments by name as abstract values and gives the result's; ``price`` takes them and the result
    and gives FLOPs. ``fields`` are the fields of a node, beside its arguments, that the operation has; one that ends in
    ``?`` may be absent. The rules of operations that touch the model also take what the site map knows (``site``,
    ``takes``, ``gives``). Two equal nodes of a ``random`` operation have different values.
    """

    kind: Kind
    rule: Rule
    price: Price
    doc: str
    fields: tuple[str, ...] = ()
    random: bool = False

    def shape(self, bound: Mapping[str, Any]) -> Abstract:
        """The abstract result; ``ShapeError`` where the kernel would raise or the result is too large."""
        result = self.rule(**bound)
        if isinstance(result, AbstractTensor):
            _check_size(result)
        elif isinstance(result, tuple):
            for item in result:
                if isinstance(item, AbstractTensor):
                    _check_size(item)
        return result

    def cost(self, bound: Mapping[str, Any], result: Abstract) -> int:
        """Floating-point operations, or elements moved where nothing is computed."""
        return self.price(bound, result)


def pure(signature: str, rule: Rule, doc: str, *, price: Price = elementwise, random: bool = False) -> Operation:
    """A row for an operation whose result depends on nothing but its arguments (and the task's seed if ``random``)."""
    parsed = parse_signature(signature)
    return Operation(parsed.name, parsed.parameters, Kind.PURE, rule, price, doc, random=random)


def _check_size(tensor: AbstractTensor) -> None:
    if tensor.size > MAX_ELEMENTS or max(tensor.shape, default=0) > MAX_ELEMENTS:
        raise ShapeError(f"the result {list(tensor.shape)} has {tensor.size:,} elements; at most {MAX_ELEMENTS:,} fit")
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise ShapeError(f"the result has {len(tensor.shape)} dimensions; at most {MAX_DIMENSIONS} are possible")
