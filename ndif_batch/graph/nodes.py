"""The intervention graph as frozen data: runs of a model, and nodes that read, compute, write and save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import EllipsisType
from typing import TypeAlias

VERSION = 1


class ParamType(StrEnum):
    """What a parameter may be bound to. A string bound to an ``int`` stands for its one token's id."""

    PROMPT = "prompt"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    STR = "str"
    TENSOR = "tensor"


@dataclass(frozen=True, slots=True)
class NodeRef:
    """The value of an earlier node."""

    node: int


@dataclass(frozen=True, slots=True)
class ParamRef:
    """The value that a task binds to a parameter."""

    param: str


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A constant tensor that travels beside the graph, named by the digest of its content."""

    digest: str


@dataclass(frozen=True, slots=True)
class SliceArg:
    """``start:stop:step`` inside an index; each part may be an argument itself."""

    start: Arg = None
    stop: Arg = None
    step: Arg = None


Step: TypeAlias = "int | SliceArg"
"""Which steps of a generation: one, or a slice of them; negative ones count from the last."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A prompt that is no text: the tensors that the model's forward takes, by name in alphabetical order.

    Each is one item of a batch, ``[1, …]``. A run of it counts as one token: the axis of the tokens is the batch's.
    """

    tensors: tuple[tuple[str, TensorRef], ...]

    @classmethod
    def of(cls, digests: Mapping[str, str]) -> Inputs:
        """Of the digest of each tensor by its name."""
        return cls(tuple((name, TensorRef(digests[name])) for name in sorted(digests)))

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return f"Inputs({', '.join(f'{name}={tensor.digest}' for name, tensor in self.tensors)})"

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each tensor by its name."""
        return {name: tensor.digest for name, tensor in self.tensors}


Literal: TypeAlias = bool | int | float | str | None
Arg: TypeAlias = "Literal | EllipsisType | NodeRef | ParamRef | TensorRef | Inputs | SliceArg | tuple[Arg, ...]"
Prompt: TypeAlias = tuple[int, ...] | Inputs
"""What a model takes in: token ids, or tensors."""
Value: TypeAlias = bool | int | float | str | tuple[int, ...] | TensorRef | Inputs
"""What a parameter can be bound to; a tuple of ints is a prompt given as token ids."""


@dataclass(frozen=True, slots=True)
class Run:
    """One forward pass over one prompt, as the graph sees it, or a generation that begins with that.

    Where an engine has a pass for every step of a generation, the prompt of a step is the token of an earlier node.
    """

    name: str
    prompt: ParamRef | NodeRef | str | tuple[int, ...] | Inputs


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; its id is its place in ``Graph.nodes``.

    ``run`` and ``site`` are set on boundary operations; ``index`` only on ``write``; ``name`` on ``save`` and
    ``log``; ``dims`` (names of the saved value's own dimensions) optionally on ``save``. A site is a module path
    and ``input`` or ``output``; ``{layer}`` inside it stands for a parameter. ``step`` says at which steps of a
    generation the site is touched; ``None`` is step 0, the prompt's own pass.
    """

    op: str
    args: tuple[Arg, ...] = ()
    kwargs: tuple[tuple[str, Arg], ...] = ()
    run: int | None = None
    site: str | None = None
    index: tuple[Arg, ...] | None = None
    name: str | None = None
    dims: tuple[str, ...] | None = None
    step: Step | None = None

    def arguments(self) -> Iterator[Arg]:
        """Every argument: the index, the positional and the keyword arguments."""
        yield from self.index or ()
        yield from self.args
        for _, value in self.kwargs:
            yield value


@dataclass(frozen=True, slots=True)
class Graph:
    """A program over named runs of one model. ``params`` keeps its order of declaration."""

    params: Mapping[str, ParamType]
    runs: tuple[Run, ...]
    nodes: tuple[Node, ...]
    version: int = VERSION

    def saves(self) -> dict[str, int]:
        """Name of each saved array and the id of its ``save`` node."""
        return {node.name: i for i, node in enumerate(self.nodes) if node.op == "save" and node.name is not None}


def map_arg(arg: Arg, leaf: Callable[[Arg], Arg]) -> Arg:
    """``arg`` with ``leaf`` applied to everything inside it that is not a slice or a tuple."""
    if isinstance(arg, tuple):
        return tuple([map_arg(item, leaf) for item in arg])
    if isinstance(arg, SliceArg):
        return SliceArg(map_arg(arg.start, leaf), map_arg(arg.stop, leaf), map_arg(arg.step, leaf))
    return leaf(arg)


def leaves(arg: Arg) -> Sequence[Arg]:
    """Everything inside ``arg`` that is not a slice or a tuple, in order."""
    if not isinstance(arg, tuple | SliceArg):
        return (arg,)
    found: list[Arg] = []
    waiting: list[Arg] = [arg]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tuple):
            waiting.extend(reversed(one))
        elif isinstance(one, SliceArg):
            waiting += (one.step, one.stop, one.start)
        else:
            found.append(one)
    return found


def inputs(node: Node) -> Iterator[int]:
    """Ids of the nodes whose values ``node`` takes."""
    return iter(_inputs(node))


@lru_cache(maxsize=4096)
def _inputs(node: Node) -> tuple[int, ...]:
    return tuple([leaf.node for leaf in leaves(tuple(node.arguments())) if isinstance(leaf, NodeRef)])


def map_node(node: Node, leaf: Callable[[Arg], Arg]) -> Node:
    """``node`` with ``leaf`` applied to the leaves of all its arguments."""
    args = tuple([map_arg(arg, leaf) for arg in node.args])
    kwargs = tuple([(key, map_arg(arg, leaf)) for key, arg in node.kwargs])
    index = None if node.index is None else tuple([map_arg(arg, leaf) for arg in node.index])
    return Node(node.op, args, kwargs, node.run, node.site, index, node.name, node.dims, node.step)
