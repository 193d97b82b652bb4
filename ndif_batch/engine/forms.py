"""What graphs have in common: their structure, of which constants, sites and names are numbered parameters.

Graphs of many users often differ in nothing else. They are made ready once, and run side by side as one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ndif_batch.engine.histories import exact
from ndif_batch.engine.program import optimise, without_hints
from ndif_batch.engine.vectorised import ARITHMETIC
from ndif_batch.graph.nodes import (
    Arg,
    Graph,
    Node,
    NodeRef,
    ParamRef,
    ParamType,
    Run,
    SliceArg,
    TensorRef,
    Value,
    leaves,
    map_arg,
)
from ndif_batch.graph.sites import SiteMap, SiteTensor

TAKES_NUMBERS: Final = frozenset({"write", *ARITHMETIC})
"""Operations that go together for tasks of which each has another number."""

CHOOSING: Final = "steps"
KINDS: Final[Mapping[type, ParamType]] = {int: ParamType.INT, float: ParamType.FLOAT, TensorRef: ParamType.TENSOR}


@dataclass(frozen=True, slots=True)
class Form:
    """A graph without dead and common nodes, and the submitted id of each node.

    Its first site stands in it as ``{s0}``, the next as ``{s1}``. Values of the parameters ``settled`` belong into a
    program, since tasks with different ones could not be carried out at once; those of ``sizing`` may decide how large
    a value is.
    """

    number: int
    graph: Graph
    origin: tuple[int, ...]
    settled: tuple[str, ...]
    sizing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filled:
    """A submitted graph: its form, and what fills that.

    ``sites`` may have the graph's own parameters in them; ``params`` are pairs of its name of a parameter and the
    form's; ``names`` lead from the form's names of what is saved or printed to the graph's.
    """

    form: Form
    submitted: Graph
    sites: tuple[str, ...]
    constants: Mapping[str, Value]
    params: tuple[tuple[str, str], ...]
    names: Mapping[str, str]

    @property
    def generates(self) -> bool:
        """Whether one of its runs generates."""
        return any(node.op == CHOOSING for node in self.form.graph.nodes)


class Forms:
    """The forms of graphs for one model."""

    def __init__(self, sites: SiteMap) -> None:
        self._sites = sites
        self._known: dict[Hashable, Form] = {}

    def of(self, graph: Graph) -> Filled:
        """The form of a graph."""
        lifting = _Lifting(without_hints(graph), self._sites)
        nodes = tuple([lifting.node(node) for node in lifting.graph.nodes])
        kinds = {**{own: graph.params[name] for name, own in lifting.params.items()}, **lifting.kinds}
        key = (len(graph.runs), nodes, tuple(lifting.literals), tuple(kinds.items()))
        form = self._known.get(key)
        if form is None:
            runs = tuple([Run(str(number), ()) for number in range(len(graph.runs))])
            form = self._known[key] = _form(len(self._known), Graph(kinds, runs, nodes), lifting.settled)
        return Filled(
            form,
            graph,
            tuple(lifting.sites),
            lifting.constants,
            tuple(lifting.params.items()),
            {str(number): name for number, name in enumerate(lifting.names)},
        )


def _form(number: int, graph: Graph, settled: Sequence[str]) -> Form:
    optimised, origin = optimise(graph)
    sized = {
        leaf.param
        for node in optimised.nodes
        if node.op != "write"
        for leaf in leaves(tuple(node.arguments()))
        if isinstance(leaf, ParamRef) and graph.params[leaf.param] is not ParamType.FLOAT
    }
    return Form(number, optimised, origin, tuple(settled), tuple([name for name in settled if name in sized]))


@dataclass(slots=True)
class _Lifting:
    """A graph while its nodes become those of a form. ``literals`` are the types of the constants that stay."""

    graph: Graph
    known_sites: SiteMap
    sites: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, ParamType] = field(default_factory=dict)
    constants: dict[str, Value] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    literals: list[type] = field(default_factory=list)
    _numbers: dict[tuple[bool, Hashable], str] = field(default_factory=dict)

    def node(self, node: Node) -> Node:
        """A node of the form."""
        site, name, args, index = node.site, node.name, node.args, node.index
        if site is not None:
            site = f"{{{self.sites.setdefault(site, f's{len(self.sites)}')}}}"
        if name is not None:
            self.names.append(name)
            name = str(len(self.names) - 1)
        if index is not None:
            index = self._index(index, self._is_tensor(node))
        if node.op == "getitem" and len(args) == 2 and isinstance(args[0], NodeRef):
            part = args[1] if isinstance(args[1], tuple) else (args[1],)
            lifted = self._index(part, self._is_tensor(self.graph.nodes[args[0].node]))
            args = (args[0], lifted if isinstance(args[1], tuple) else lifted[0])
        else:
            args = tuple([self._argument(arg, node.op in TAKES_NUMBERS) for arg in args])
        kwargs = tuple([(key, map_arg(arg, self._leaf)) for key, arg in node.kwargs])
        return Node(node.op, args, kwargs, node.run, site, index, name, None, node.step)

    def _is_tensor(self, node: Node) -> bool:
        """Whether a node reads or writes at a site of one tensor: then a number in its index is a place in that."""
        site = self.known_sites.sites.get(node.site or "")
        return node.op in ("read", "write") and site is not None and isinstance(site.value, SiteTensor)

    def _index(self, index: tuple[Arg, ...], is_tensor: bool) -> tuple[Arg, ...]:
        return tuple([self._part(part, is_tensor) for part in index])

    def _part(self, part: Arg, is_tensor: bool) -> Arg:
        if isinstance(part, SliceArg):
            return SliceArg(self._bound(part.start), self._bound(part.stop), self._bound(part.step))
        return self._argument(part, is_tensor)

    def _bound(self, bound: Arg) -> Arg:
        return self._constant(bound, settled=True) if type(bound) is int else self._leaf(bound)

    def _argument(self, arg: Arg, takes_numbers: bool) -> Arg:
        if takes_numbers and type(arg) in (int, float):
            return self._constant(arg, settled=False)  # type: ignore[arg-type]
        return map_arg(arg, self._leaf)

    def _leaf(self, arg: Arg) -> Arg:
        if isinstance(arg, ParamRef):
            return ParamRef(self.params.setdefault(arg.param, f"p{len(self.params)}"))
        if isinstance(arg, float | TensorRef):
            return self._constant(arg, settled=True)
        if not isinstance(arg, NodeRef):
            self.literals.append(type(arg))
        return arg

    def _constant(self, value: int | float | TensorRef, *, settled: bool) -> ParamRef:
        """One parameter for all places of equal values: what is the same twice stays so."""
        key = (settled, exact(value))
        name = self._numbers.get(key)
        if name is None:
            name = self._numbers[key] = f"{'k' if settled else 'c'}{len(self._numbers)}"
            self.constants[name] = value
            self.kinds[name] = KINDS[type(value)]
            if settled:
                self.settled.append(name)
        return ParamRef(name)
