"""Random intervention graphs for a model: reads, arithmetic, writes of every kind, transplants between runs."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field, replace
from typing import Any

from ndif_batch.engine.program import compile_task
from ndif_batch.errors import GraphError, NdifBatchError
from ndif_batch.graph.bind import bind
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg, Value, map_node
from ndif_batch.graph.sites import ATTENTION, SiteMap, SiteTensor
from ndif_batch.sweep.task import Task

ALL = SliceArg()


@dataclass
class Drawing:
    """A graph while it is drawn. ``values`` are node, kind (``row``, ``sequence``, ``scalar``), width and run."""

    rng: random.Random
    sites: SiteMap
    runs: list[Run] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    values: list[tuple[int, str, int, int]] = field(default_factory=list)

    def add(self, node: Node, kind: str | None = None, width: int = 0, run: int = 0) -> int:
        self.nodes.append(node)
        if kind is not None:
            self.values.append((len(self.nodes) - 1, kind, width, run))
        return len(self.nodes) - 1

    def length(self, run: int) -> int:
        prompt = self.runs[run].prompt
        assert isinstance(prompt, tuple)
        return len(prompt)

    def position(self, run: int) -> int:
        return self.rng.randrange(-self.length(run), self.length(run))

    def pick(self, kind: str, width: int | None = None) -> tuple[int, int] | None:
        found = [(node, w) for node, k, w, _ in self.values if k == kind and width in (None, w)]
        return self.rng.choice(found) if found else None

    def a_site(self) -> tuple[str, int, bool]:
        """A site whose tokens lie on axis 1: its path, its width, and whether it is the first of a tuple."""
        while True:
            site = self.rng.choice(list(self.sites.sites.values()))
            value: Any = site.value
            nested = isinstance(value, tuple)
            if nested:
                value = value[0]
            if site.refused is not None or not isinstance(value, SiteTensor) or value.dtype != "float32":
                continue
            if len(value.shape) == 3 and value.shape[:2] == (1, None):
                return site.path, int(value.shape[2] or 0), nested

    def read(self) -> None:
        path, width, nested = self.a_site()
        run = self.rng.randrange(len(self.runs))
        node = self.add(Node("read", run=run, site=path))
        if nested:
            node = self.add(Node("getitem", (NodeRef(node), (0,))))
        self.values.append((node, "sequence", width, run))

    def row(self) -> None:
        found = [v for v in self.values if v[1] == "sequence"]
        if not found:
            return self.read()
        node, _, width, run = self.rng.choice(found)
        position = self.position(run)
        index: tuple[Arg, ...] = self.rng.choice([(0, position), (0, position, ...), (..., position, ALL)])
        made = self.add(Node("getitem", (NodeRef(node), index)))
        if index[0] is ...:
            made = self.add(Node("getitem", (NodeRef(made), (0,))))
        self.values.append((made, "row", width, run))
        return None

    def inside(self) -> None:
        """Reads or writes a row of a site inside attention."""
        found = [site for site in self.sites.sites.values() if site.path.rpartition(".")[2] in ATTENTION]
        usable = [site.path for site in found if site.refused is None]
        if not usable:
            return self.read()
        path, run = self.rng.choice(usable), self.rng.randrange(len(self.runs))
        index, width = self.inside_row(path, run)
        if self.rng.random() < 0.6:
            read = self.add(Node("read", run=run, site=path))
            self.add(Node("getitem", (NodeRef(read), index)), "row", width, run)
        else:
            row = self.pick("row", width)
            value: Arg = NodeRef(row[0]) if row else self.rng.choice([0.0, 0.3])
            self.add(Node("write", (value,), run=run, site=path, index=self.rng.choice([index, (ALL, *index[1:])])))
        return None

    def inside_row(self, path: str, run: int) -> tuple[tuple[Arg, ...], int]:
        """The index of a row of a site inside attention, and its width."""
        value = self.sites.site(path).value
        assert isinstance(value, SiteTensor)
        axis = value.token_axes[0]
        head = self.rng.randrange(value.shape[3 - axis] or 1)
        index = (0, *((head, self.position(run)) if axis == 2 else (self.position(run), head)))
        return index, value.shape[3] or self.length(run)

    def compute(self) -> None:
        one = self.pick("row")
        if one is None:
            return self.row()
        node, width = one
        other = self.pick("row", width) or one
        choice = self.rng.choice(["add", "sub", "mul", "softmax", "tanh", "scale", "mean", "norm", "randn"])
        if choice in ("add", "sub", "mul"):
            self.add(Node(choice, (NodeRef(node), NodeRef(other[0]))), "row", width)
        elif choice == "softmax":
            self.add(Node("softmax", (NodeRef(node),), (("dim", -1),)), "row", width)
        elif choice == "tanh":
            self.add(Node("tanh", (NodeRef(node),)), "row", width)
        elif choice == "scale":
            self.add(Node("mul", (NodeRef(node), self.rng.choice([-2.0, 0.5, 3]))), "row", width)
        elif choice == "randn":
            self.add(Node("randn", ((width,),)), "row", width)
        else:
            self.add(Node(choice, (NodeRef(node),)), "scalar")
        return None

    def write(self) -> None:
        path, width, nested = min((self.a_site() for _ in range(2)), key=lambda found: self.sites.site(found[0]).order)
        run = self.rng.randrange(len(self.runs))
        at = (0,) if nested else ()
        position = self.position(run)
        row, scalar = self.pick("row", width), self.pick("scalar")
        whole = [
            v for v in self.values if v[1] == "sequence" and v[2] == width and self.length(v[3]) == self.length(run)
        ]
        choices: list[tuple[tuple[Arg, ...], Arg]] = [((ALL, position), 0.0), ((0, position, SliceArg(1, 5)), 1.5)]
        if row:
            choices += [((ALL, position), NodeRef(row[0])), ((0, SliceArg(position)), NodeRef(row[0]))]
        if scalar:
            choices += [((..., SliceArg(None, None, 2)), NodeRef(scalar[0]))]
        if whole:
            choices += [((), NodeRef(self.rng.choice(whole)[0]))]
        index, value = self.rng.choice(choices)
        self.add(Node("write", (value,), run=run, site=path, index=(*at, *index) or None))

    def differentiate(self) -> None:
        """Gradients of one number, by what was read so far where it can depend on that."""
        found = [v for v in self.values if v[1] in ("row", "scalar")]
        if not found:
            return
        node, kind, width, _ = self.rng.choice(found)
        item = Node("getitem", (NodeRef(node), (self.rng.randrange(width or 1),)))
        scalar = node if kind == "scalar" else self.add(item, "scalar")
        backward = self.add(Node("backward", (NodeRef(scalar),)))
        reads = [i for i, node in enumerate(self.nodes) if node.op == "read"]
        for read in self.rng.sample(reads, min(3, len(reads))):
            self.add(Node("grad", (NodeRef(read), NodeRef(backward))))
            try:
                compile_task(self.graph, tuple(range(len(self.nodes))), self.sites)
            except GraphError:
                self.nodes.pop()
                continue
            path, run = str(self.nodes[read].site), self.nodes[read].run or 0
            value: Any = self.sites.site(path).value
            made = len(self.nodes) - 1
            if path.rpartition(".")[2] in ATTENTION:
                index, width = self.inside_row(path, run)
                self.add(Node("getitem", (NodeRef(made), index)), "row", width, run)
                continue
            if isinstance(value, tuple):
                made, value = self.add(Node("getitem", (NodeRef(made), (0,)))), value[0]
            self.values.append((made, "sequence", int(value.shape[2] or 0), self.nodes[read].run or 0))

    @property
    def graph(self) -> Graph:
        return Graph({}, tuple(self.runs), tuple(self.nodes))

    def call(self) -> None:
        row = self.pick("row")
        if row is None or self.sites.head is None:
            return
        weight = self.sites.weights[f"{self.sites.head}.weight"][0]
        if weight[1] == row[1]:
            self.add(Node("call", (NodeRef(row[0]),), site=self.sites.head), "row", weight[0])


def random_task(seed: int, sites: SiteMap, *, gradients: bool = False) -> Task:
    """A task with a valid random graph; the same one for the same seed."""
    rng = random.Random(seed)
    steps = ["read", "row", "row", "compute", "compute", "write", "write", "call", "inside", "inside"]
    steps += ["differentiate"] * gradients
    while True:
        drawing = Drawing(rng, sites)
        for number in range(rng.randint(1, 3)):
            tokens = tuple(rng.randrange(sites.vocabulary) for _ in range(rng.randint(1, 9)))
            same = drawing.runs[-1].prompt if drawing.runs and rng.random() < 0.4 else tokens
            drawing.runs.append(Run(f"run{number}", same))
        for _ in range(rng.randint(3, 14)):
            getattr(drawing, rng.choice(steps))()
        if sites.head is not None and rng.random() < 0.7:
            read = drawing.add(Node("read", run=rng.randrange(len(drawing.runs)), site=f"{sites.head}.output"))
            drawing.add(Node("getitem", (NodeRef(read), (0, -1))), "row", sites.vocabulary)
        if gradients:
            drawing.differentiate()
            found = [i for i, node in enumerate(drawing.nodes) if node.op == "grad"]
            if not found:
                continue
            of_last = (i for i, n in enumerate(drawing.nodes) if n.op == "getitem" and n.args[0] == NodeRef(found[-1]))
            drawing.add(Node("save", (NodeRef(next(of_last, found[-1])),), name="gradient"))
        for number, (node, *_) in enumerate(rng.sample(drawing.values, min(3, len(drawing.values)))):
            drawing.add(Node("save", (NodeRef(node),), name=f"save{number}"))
        graph = drawing.graph
        try:
            if graph.saves():
                compile_task(graph, tuple(range(len(graph.nodes))), sites)
                return Task(graph, {}, seed=seed)
        except GraphError:
            continue


def random_sweep(seed: int, sites: SiteMap, tasks: int) -> list[Task]:
    """Tasks of one random graph that differ in positions, numbers, layers, prompts and seeds, some in none of them."""
    rng = random.Random(seed)
    while True:
        template = random_task(rng.randrange(2**40), sites).graph
        params: dict[str, ParamType] = {}
        values: dict[str, list[Value]] = {}

        def free(arg: Arg, params: dict[str, ParamType] = params, values: dict[str, list[Value]] = values) -> Arg:
            if isinstance(arg, bool) or not isinstance(arg, int | float) or arg == 0 or rng.random() < 0.5:
                return arg
            kind = ParamType.INT if isinstance(arg, int) else ParamType.FLOAT
            name = f"p{len(params)}"
            params[name] = kind
            values[name] = [arg if rng.random() < 0.3 else _other(rng, arg) for _ in range(tasks)]
            return ParamRef(name)

        nodes = tuple(
            map_node(node, free) if node.op in ("getitem", "write", "mul") and rng.random() < 0.8 else node
            for node in template.nodes
        )
        runs = []
        for run in template.runs:
            params[run.name] = ParamType.PROMPT
            assert isinstance(run.prompt, tuple)
            other = tuple(rng.randrange(sites.vocabulary) for _ in range(rng.randint(1, 9)))
            values[run.name] = [run.prompt if rng.random() < 0.8 else other for _ in range(tasks)]
            runs.append(Run(run.name, ParamRef(run.name)))
        graph = Graph(params, tuple(runs), _at_any_layer(rng, nodes, params, values, tasks))
        made = [Task(graph, {name: values[name][i] for name in params}, seed=rng.randrange(3)) for i in range(tasks)]
        try:
            for task in made:
                bound = bind(graph, task.bindings)
                compile_task(bound, tuple(range(len(nodes))), sites)
        except NdifBatchError:
            continue
        return made


def _other(rng: random.Random, arg: int | float) -> int | float:
    return rng.randrange(-3, 3) if isinstance(arg, int) else rng.choice([-1.5, 0.25, 2.0])


def _at_any_layer(
    rng: random.Random,
    nodes: tuple[Node, ...],
    params: dict[str, ParamType],
    values: dict[str, list[Value]],
    tasks: int,
) -> tuple[Node, ...]:
    """The nodes with one parameter in place of the number of a block, where there is one to replace."""
    found = [(i, re.search(r"\.([0-2])\.", str(node.site))) for i, node in enumerate(nodes) if node.op == "write"]
    matches = [(i, match) for i, match in found if match is not None]
    if not matches or rng.random() < 0.3:
        return nodes
    i, match = rng.choice(matches)
    params["layer"] = ParamType.INT
    values["layer"] = [rng.randrange(3) for _ in range(tasks)]
    site = f"{match.string[: match.start()]}.{{layer}}.{match.string[match.end() :]}"
    return (*nodes[:i], replace(nodes[i], site=site), *nodes[i + 1 :])
