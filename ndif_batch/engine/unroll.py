"""Generations written out: a run for every step, whose prompt is the token that the run before it has chosen.

What touches a slice of steps becomes a node at each of them. Steps that nobody needs are not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ndif_batch.engine.schedule import CHOOSE, JOINED
from ndif_batch.errors import GraphError
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, Run, SliceArg, map_node
from ndif_batch.graph.sites import SiteMap, SiteTensor, SiteValue
from ndif_batch.graph.steps import Generation, generations, step_by_step, steps_of

RULE = "steps"
TOUCHING = ("read", "write")
TOKENS: Arg = ("int64", (None,), 0)


def unrolled(graph: Graph, origin: tuple[int, ...], sites: SiteMap) -> tuple[Graph, tuple[int, ...]]:
    """The graph with a run for each step, and the submitted id of each node.

    Nodes that choose tokens come first, so that they keep their ids whatever is rebuilt later on.
    """
    found = generations(graph)
    if not found:
        return graph, origin
    _check(graph, origin, sites)
    writing = _Unrolling(graph, origin, sites, found)
    for i, node in enumerate(graph.nodes):
        writing.add(i, node)
    return replace(graph, runs=tuple(writing.runs), nodes=tuple(writing.nodes)), tuple(writing.origin)


def _check(graph: Graph, origin: tuple[int, ...], sites: SiteMap) -> None:
    for i, node in enumerate(graph.nodes):
        if node.op == "grad":
            raise GraphError(
                "gradients and generation do not go together in one graph", rule="not-in-this-version", node=origin[i]
            )
        if node.op == "steps" and sites.head is None:
            raise GraphError("the model has no head that gives logits", rule=RULE, node=origin[i])


@dataclass
class _Unrolling:
    graph: Graph
    given: tuple[int, ...]
    sites: SiteMap
    generations: Mapping[int, Generation]
    runs: list[Run] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    origin: list[int] = field(default_factory=list)
    _place: dict[int, int] = field(default_factory=dict)
    _run_of: dict[tuple[int, int], int] = field(default_factory=dict)
    _choices: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.runs += self.graph.runs
        self._run_of.update({(run, 0): run for run in range(len(self.graph.runs))})
        for run, own in self.generations.items():
            wanted, tokens = self._needed(run, own.count)
            for step in range(wanted):
                if step:
                    self._run_of[run, step] = len(self.runs)
                    chosen = NodeRef(self._choices[run, step - 1])
                    self.runs.append(Run(f"{self.graph.runs[run].name}, step {step}", chosen))
                if step < wanted - 1 or tokens:
                    steps = self.graph.nodes[own.node]
                    kwargs = tuple([(name, arg) for name, arg in steps.kwargs if name != "n"])
                    node = Node(CHOOSE, kwargs=(*kwargs, ("step", step)), run=self._run_of[run, step])
                    self._choices[run, step] = self._append(node, own.node)

    def _needed(self, run: int, count: int) -> tuple[int, bool]:
        """How many steps of a run somebody needs, and whether also the token that the last of them chooses."""
        own = [node for node in self.graph.nodes if node.run == run]
        if any(node.op == "tokens" for node in own):
            return count, True
        read = [max(steps_of(node.step, count)) + 1 for node in own if node.op == "read"]
        return max(read, default=0), False

    def add(self, i: int, node: Node) -> None:
        """What the graph says next."""
        if node.op == "steps":
            return
        if node.op == "tokens" and node.run is not None:
            steps = range(self.generations[node.run].count)
            parts = [self._choices[node.run, step] for step in steps]
            self._place[i] = self._append(Node(JOINED, (TOKENS, *map(NodeRef, parts))), i)
        elif node.step is None or node.run is None:
            self._place[i] = self._append(self._moved(node), i)
        elif isinstance(node.step, SliceArg):
            self._add_steps(i, node, steps_of(node.step, self.generations[node.run].count))
        else:
            (step,) = steps_of(node.step, self.generations[node.run].count)
            if (node.run, step) in self._run_of:
                self._place[i] = self._append(self._at(node, node.run, step), i)

    def _add_steps(self, i: int, node: Node, steps: range) -> None:
        run = node.run or 0
        there = [step for step in steps if (run, step) in self._run_of]
        if node.op == "read":
            parts = [self._append(self._at(node, run, step), i) for step in there]
            kinds = _kinds(self.sites.site(str(node.site)).value)
            if kinds is None:
                raise GraphError(
                    f"site {node.site!r} has no one axis of tokens, so its steps cannot be joined",
                    rule=RULE,
                    node=self.given[i],
                    hint="read one step",
                )
            self._place[i] = self._append(Node(JOINED, (kinds, *map(NodeRef, parts))), i)
            return
        behind = sorted(step_by_step(self.graph, i))
        joined = {j: self._place[j] for j in behind}
        for step in there:
            for j in behind:
                own = self.graph.nodes[j]
                self._place[j] = self._append(self._at(own, run, step) if own.op == "read" else self._moved(own), j)
            self._append(self._at(node, run, step), i)
            self._place |= joined

    def _at(self, node: Node, run: int, step: int) -> Node:
        return replace(self._moved(node), run=self._run_of[run, step], step=None)

    def _moved(self, node: Node) -> Node:
        def leaf(arg: Arg) -> Arg:
            return NodeRef(self._place[arg.node]) if isinstance(arg, NodeRef) else arg

        return map_node(node, leaf)

    def _append(self, node: Node, i: int) -> int:
        self.nodes.append(node)
        self.origin.append(self.given[i])
        return len(self.nodes) - 1


def _kinds(value: SiteValue) -> Arg:
    """Of each tensor of a site its dtype, its shape and its tokens' axis: what it takes to join several, or none.

    ``None`` stands for what cannot be joined.
    """
    if isinstance(value, tuple):
        return tuple([_kinds(item) for item in value])
    if not isinstance(value, SiteTensor) or len(value.token_axes) != 1 or value.seen is not None:
        return None
    return (value.dtype, value.shape, value.token_axes[0])
