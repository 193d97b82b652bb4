"""Random tasks that generate: for comparing what they save in company with what the oracle says."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg, Step
from ndif_batch.graph.sites import ATTENTION, SiteMap, SiteTensor, SiteValue
from ndif_batch.graph.validate import validate
from ndif_batch.sweep.task import Task

PROMPTS = ((3, 1, 4, 1, 5), (3, 1, 4), (2, 7, 1, 8, 2, 8, 1), (9,))
CHOICES: tuple[dict[str, Arg], ...] = (
    {},
    {},
    {"temperature": 1.5},
    {"top_k": 5},
    {"top_p": 0.7, "temperature": ParamRef("heat")},
)


def random_generation(seed: int, sites: SiteMap) -> Task:
    """One task of one to three runs, most of which generate, with reads and writes at steps of all kinds."""
    made = _Making(random.Random(seed), sites)
    return Task(made.graph(), {"heat": made.rng.choice([0.5, 2.0])}, seed=seed)


class _Making:
    def __init__(self, rng: random.Random, sites: SiteMap) -> None:
        self.rng = rng
        self.sites = sites
        self.nodes: list[Node] = []
        self.steps: dict[int, int] = {}
        self.inside = [
            site.path
            for site in sites.sites.values()
            if site.refused is None and site.path.rpartition(".")[2] in ATTENTION
        ]
        self.tensors = [
            (site.path, *found)
            for site in sites.sites.values()
            if site.refused is None and (found := _hidden(site.value)) is not None
        ]

    def graph(self) -> Graph:
        runs = self.rng.randint(1, 3)
        for run in range(runs):
            if self.rng.random() < 0.85:
                self.generate(run)
        if not self.steps:
            self.generate(0)
        for _ in range(self.rng.randint(1, 6)):
            kinds = [self.save_read, self.save_read, self.scale, self.transplant, self.constant]
            self.rng.choice([*kinds, *[self.save_inside, self.write_inside] * bool(self.inside)])()
        self.saved(self.add("read", run=self.some_run(), site=f"{self.sites.head}.output"))
        params = {"heat": ParamType.FLOAT}
        graph = Graph(params, tuple(Run(f"r{i}", self.rng.choice(PROMPTS)) for i in range(runs)), tuple(self.nodes))
        validate(graph)
        return graph

    def generate(self, run: int) -> None:
        self.steps[run] = self.rng.randint(1, 6)
        chosen = dict(self.rng.choice(CHOICES))
        if self.rng.random() < 0.3:
            chosen["stop"] = tuple(range(self.rng.randint(0, 1), self.sites.vocabulary, 3))
        self.add("steps", (self.steps[run],), run=run, kwargs=tuple(sorted(chosen.items())))
        if self.rng.random() < 0.7:
            self.saved(self.add("tokens", run=run))

    def save_read(self) -> None:
        run = self.some_run()
        self.saved(self.read(run, self.some_step(run)))

    def scale(self) -> None:
        """Reads a site and writes it back changed, at the same step or steps."""
        run = self.some_run()
        path, items, _ = self.rng.choice(self.tensors)
        step = self.some_step(run)
        value = self.add("read", run=run, site=path, step=step)
        value = self.add("getitem", (value, items)) if items else value
        scaled = self.add("mul", (value, self.rng.choice([0.5, 1.5, -1.0])))
        if isinstance(step, SliceArg) and self.rng.random() < 0.3:
            self.saved(scaled)
        self.add("write", (scaled,), run=run, site=path, index=items or None, step=step)

    def constant(self) -> None:
        run = self.some_run()
        path, items, _ = self.rng.choice(self.tensors)
        index: tuple[Arg, ...] = (*items, 0, -1, SliceArg(0, 3))
        self.add("write", (self.rng.uniform(-2, 2),), run=run, site=path, index=index, step=self.some_step(run))

    def save_inside(self) -> None:
        """What attention has at one step: all that was seen before is among the keys."""
        run = self.some_run()
        value = self.add("read", run=run, site=self.rng.choice(self.inside), step=self.one_step(run))
        self.saved(self.add("getitem", (value, (0, -1))) if self.rng.random() < 0.3 else value)

    def write_inside(self) -> None:
        """Changes the last token, or the first one that is there."""
        run, path = self.some_run(), self.rng.choice(self.inside)
        position = self.rng.choice([-1, 0])
        index: tuple[Arg, ...] = (0, position, 1) if path.endswith(".heads") else (0, 1, position)
        value = self.rng.choice([0.0, 0.4])
        self.add("write", (value,), run=run, site=path, index=index, step=self.some_step(run))

    def transplant(self) -> None:
        """A part of what one step of a run holds goes into a step of another, or of the same."""
        source, target = self.some_run(), self.some_run()
        path, items, width = self.rng.choice(self.tensors)
        alike = [other for other in self.tensors if other[2] == width]
        there, into, _ = self.rng.choice(alike)
        at = self.one_step(source)
        value = self.add("read", run=source, site=path, step=at)
        value = self.add("getitem", (value, items)) if items else value
        part = self.add("getitem", (value, (0, -1)))
        later = self.one_step(target)
        if source == target and (later or 0) <= (at or 0):
            self.saved(part)
            return
        self.add("write", (part,), run=target, site=there, index=(*into, 0, -1), step=later)

    def read(self, run: int, step: Step | None) -> NodeRef:
        path, items, _ = self.rng.choice(self.tensors)
        value = self.add("read", run=run, site=path, step=step)
        if items:
            value = self.add("getitem", (value, items))
        return self.add("getitem", (value, (0, -1))) if self.rng.random() < 0.4 else value

    def some_run(self) -> int:
        return self.rng.choice(list(self.steps))

    def one_step(self, run: int) -> int | None:
        steps: list[int | None] = [None, *range(self.steps[run])]
        return self.rng.choice(steps)

    def some_step(self, run: int) -> Step | None:
        start = self.rng.randrange(self.steps[run])
        return self.rng.choice([self.one_step(run), SliceArg(), SliceArg(start), SliceArg(0, start + 1, 2)])

    def saved(self, value: Arg) -> None:
        name = f"save{sum(node.op == 'save' for node in self.nodes)}"
        self.nodes.append(Node("save", (value,), name=name))

    def add(self, op: str, args: tuple[Arg, ...] = (), **fields: object) -> NodeRef:
        self.nodes.append(Node(op, args, **fields))  # type: ignore[arg-type]
        return NodeRef(len(self.nodes) - 1)


def _hidden(value: SiteValue) -> tuple[tuple[int, ...], int] | None:
    """The items that lead to a tensor ``[1, tokens, width]`` of floats, and its width."""
    found: Iterator[tuple[tuple[int, ...], SiteValue]] = iter(
        [((), value)] if not isinstance(value, tuple) else [((i,), item) for i, item in enumerate(value)]
    )
    for items, one in found:
        if isinstance(one, SiteTensor) and len(one.shape) == 3 and one.token_axes == (1,) and "float" in one.dtype:
            return items, one.shape[2] or 0
    return None
