"""Makes tasks ready to run: checks what they bind, compiles each graph once, tells what each task needs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ndif_batch.engine.batches import Need, Prepared, WayBack
from ndif_batch.engine.blocks import Moments, births_of, find_blocks
from ndif_batch.engine.layout import Arrangement
from ndif_batch.engine.loaded import Outline
from ndif_batch.engine.memory import NOTED, Live, bytes_a_token, live_bytes
from ndif_batch.engine.program import Program, at_sites, compile_task, optimise, touched
from ndif_batch.engine.routes import Route, routes
from ndif_batch.engine.schedule import order_of
from ndif_batch.engine.tasks import Member
from ndif_batch.errors import NdifBatchError
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.bind import bind, prompt_of, require_bound, site_params
from ndif_batch.graph.infer import infer
from ndif_batch.graph.nodes import Graph, ParamType, Run, Value
from ndif_batch.graph.sites import Site
from ndif_batch.graph.validate import constants as digests
from ndif_batch.models.probe import dtype_name
from ndif_batch.models.tokenizer import resolve, token_ids
from ndif_batch.sweep.task import Task


@dataclass(frozen=True, slots=True)
class _Known:
    """A graph without what it does not need; ``named`` are the parameters inside its sites, ``texts`` those that may
    be bound to text that stands for tokens.

    ``submitted`` is kept so that no other graph can come to have its identity.
    """

    submitted: Graph
    graph: Graph
    origin: tuple[int, ...]
    named: tuple[str, ...]
    texts: tuple[str, ...]


class Preparation:
    """Prepares tasks for one model; ``solo`` runs every task alone."""

    def __init__(self, model: Outline, *, solo: bool, constants: Mapping[str, torch.Tensor]) -> None:
        self._model = model
        self._constants = constants
        self._solo = solo
        self._graphs: dict[int, _Known] = {}
        self._programs: dict[tuple[int, tuple[Value, ...], tuple[int, ...]], tuple[Program, bool]] = {}
        self._prompts: dict[tuple[str, str | tuple[int, ...]], tuple[int, ...]] = {}
        self._lives: dict[tuple[Any, ...], Live] = {}
        paths = find_blocks(model.sites)
        self._blocks = Moments(births_of(paths, model.sites) if paths else ())
        self.routes: dict[int, tuple[Route, ...]] = {}

    def task(self, index: int, task: Task) -> Prepared:
        """Task ``index`` of those given; an ``NdifBatchError`` says what is wrong with it."""
        known = self._known(task.graph)
        bindings = task.bindings
        if bindings.keys() != task.graph.params.keys():
            require_bound(task.graph, bindings)
        if any(isinstance(bindings[name], str) for name in known.texts):
            bindings = resolve(task.graph.params, bindings, self._model.tokenizer)
        prompts = tuple([self._prompt(run, bindings) for run in known.graph.runs])
        apart = () if self._model.layout.packed else tuple(len(prompt) for prompt in prompts)
        key = (id(task.graph), tuple([bindings[name] for name in known.named]), apart)
        if key not in self._programs:
            self._programs[key] = self._compiled(at_sites(known.graph, bindings), known.origin)
        program, alone = self._programs[key]
        member = Member(index, task.seed, bindings, prompts)
        return Prepared(program, member, alone, self._need(known, program, member))

    def _prompt(self, run: Run, bindings: Mapping[str, Value]) -> tuple[int, ...]:
        prompt = prompt_of(run, bindings)
        found = self._prompts.get((run.name, prompt))
        if found is None:
            found = token_ids(run, bindings, self._model.tokenizer, self._model.sites)
            self._prompts[run.name, prompt] = found
        return found

    def _known(self, graph: Graph) -> _Known:
        if id(graph) not in self._graphs:
            optimised, origin = optimise(graph)
            sites = [node.site for node in optimised.nodes if node.site is not None]
            named = dict.fromkeys(name for site in sites for name in site_params(site))
            texts = [name for name, kind in graph.params.items() if kind in (ParamType.PROMPT, ParamType.INT)]
            self._graphs[id(graph)] = _Known(graph, optimised, origin, tuple(named), tuple(texts))
        return self._graphs[id(graph)]

    def _compiled(self, graph: Graph, origin: tuple[int, ...]) -> tuple[Program, bool]:
        sites = self._model.sites
        layout = self._model.layout
        program = compile_task(graph, origin, sites, together=layout.packed)
        alone = (
            self._solo
            or layout.arrangement is Arrangement.ALONE
            or not layout.alone.isdisjoint(touched(program, sites))
        )
        if alone and layout.packed:
            program = compile_task(graph, origin, sites, together=False)
        self.routes[id(program)] = routes(program, sites, layout.moments)
        return program, alone

    def _need(self, known: _Known, program: Program, member: Member) -> Need:
        births = self._model.layout.moments.births
        tokens = positions = 0
        shares: list[tuple[Hashable, int]] = []
        for route in self.routes[id(program)]:
            prompt, reach, changed = member.prompts[route.visit.run], route.reach(member), route.visit.apart
            positions += len(reach.kept)
            if changed and (not births or route.birth != len(births) - 1):
                own = len(prompt) - reach.start
                if route.history is None:
                    tokens += own
                else:
                    shares.append((route.history.of(member), own))
            if not changed or reach.start:
                shares.append((prompt, len(prompt)))
        live = self._live(known, program, member)
        return Need(tokens, frozenset(shares), positions, live, self._back(program, member))

    def _back(self, program: Program, member: Member) -> WayBack:
        """What the gradients of a task need on their way back through the runs that are its own."""
        found, sites = WayBack(), self._model.sites
        for route in self.routes[id(program)] if program.differentiated else ():
            visit, length = route.visit, len(member.prompts[route.visit.run])
            if visit.apart and visit.stage in program.differentiated:
                touched = [program.graph.nodes[i] for i in (*visit.targets, *visit.writes)]
                first = min(order_of(node, sites) for node in touched)
                through = self._blocks.through(visit.depth) - max(self._blocks.birth(first), 0)
                reach = route.reach(member)
                noted = sum(bytes_a_token(sites, str(program.graph.nodes[i].site)) for i in visit.targets)
                own = length - reach.start
                found += WayBack(own * through, own, len(reach.kept), NOTED * noted * length)
        return found

    def _live(self, known: _Known, program: Program, member: Member) -> Live:
        """Bytes of the values of a task: equal for all tasks of a program whose prompts are equally long."""
        key = (id(program), *map(len, member.prompts))
        found = self._lives.get(key)
        if found is None:
            found = self._lives[key] = self._live_anew(known, program, member)
        return found

    def _live_anew(self, known: _Known, program: Program, member: Member) -> Live:
        """Programs of one graph at sites of one kind are taken to be equal."""
        sites = self._model.sites
        kinds = tuple(site.value for site in self._named_sites(program, known))
        key = (id(known.graph), kinds, tuple(len(prompt) for prompt in member.prompts))
        if key not in self._lives:
            bound = bind(known.graph, member.bindings)
            runs = tuple(replace(run, prompt=ids) for run, ids in zip(bound.runs, member.prompts, strict=True))
            try:
                values = infer(replace(bound, runs=runs), sites, self._shapes(bound))
            except NdifBatchError:
                values = []
            self._lives[key] = live_bytes(program, dict(zip(known.origin, values, strict=False)))
        return self._lives[key]

    def _shapes(self, bound: Graph) -> dict[str, AbstractTensor]:
        given = {digest: self._constants[digest] for digest in digests(bound) if digest in self._constants}
        return {digest: AbstractTensor(tuple(one.shape), dtype_name(one.dtype)) for digest, one in given.items()}

    def _named_sites(self, program: Program, known: _Known) -> Iterator[Site]:
        if known.named:
            for node in program.graph.nodes:
                if str(node.site) in self._model.sites.sites:
                    yield self._model.sites.sites[str(node.site)]
