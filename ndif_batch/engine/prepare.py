"""Makes tasks ready to run: checks what they bind, compiles each graph once, and cuts the tasks into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ndif_batch.engine.cohort import Member
from ndif_batch.engine.layout import Arrangement
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.plan import Route, routes
from ndif_batch.engine.program import Program, at_sites, compile_task, optimise, touched
from ndif_batch.graph.bind import prompt_of, require_bound, site_params
from ndif_batch.graph.nodes import Graph, Run, Value
from ndif_batch.graph.sites import SiteTensor, SiteValue
from ndif_batch.models.tokenizer import resolve, token_ids
from ndif_batch.sweep.task import Task


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task with the program that it shares with others; ``alone`` says that it runs by itself."""

    program: Program
    member: Member
    alone: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """A graph without what it does not need; ``named`` are the parameters inside its sites."""

    graph: Graph
    origin: tuple[int, ...]
    named: tuple[str, ...]


class Preparation:
    """Prepares tasks for one model; ``solo`` runs every task alone."""

    def __init__(self, model: LoadedModel, *, solo: bool) -> None:
        self._model = model
        self._solo = solo
        self._graphs: dict[int, _Known] = {}
        self._programs: dict[tuple[int, tuple[Value, ...]], tuple[Program, bool]] = {}
        self._prompts: dict[tuple[str, str | tuple[int, ...]], tuple[int, ...]] = {}
        self.routes: dict[int, tuple[Route, ...]] = {}

    def task(self, index: int, task: Task) -> Prepared:
        """Task ``index`` of those given; an ``NdifBatchError`` says what is wrong with it."""
        known = self._known(task.graph)
        require_bound(task.graph, task.bindings)
        bindings = resolve(task.graph.params, task.bindings, self._model.tokenizer)
        prompts = tuple(self._prompt(run, bindings) for run in known.graph.runs)
        key = (id(task.graph), tuple(bindings[name] for name in known.named))
        if key not in self._programs:
            self._programs[key] = self._compiled(at_sites(known.graph, bindings), known.origin)
        program, alone = self._programs[key]
        return Prepared(program, Member(index, task.seed, bindings, prompts), alone)

    def batches(self, tasks: Sequence[Prepared], max_tokens: int) -> Iterator[list[Prepared]]:
        """Tasks in order, as many together as ``max_tokens`` tokens allow."""
        batch: list[Prepared] = []
        shared: set[tuple[int, ...]] = set()
        tokens = 0
        for task in tasks:
            if task.alone:
                yield [task]
                continue
            own, prompts = self._tokens(task)
            more = own + sum(len(prompt) for prompt in prompts - shared)
            if batch and tokens + more > max_tokens:
                yield batch
                batch, shared, tokens = [], set(), 0
                more = own + sum(len(prompt) for prompt in prompts)
            batch.append(task)
            shared |= prompts
            tokens += more
        if batch:
            yield batch

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
            self._graphs[id(graph)] = _Known(optimised, origin, tuple(named))
        return self._graphs[id(graph)]

    def _compiled(self, graph: Graph, origin: tuple[int, ...]) -> tuple[Program, bool]:
        sites = self._model.sites
        layout = self._model.layout
        alone = (
            self._solo
            or layout.arrangement is Arrangement.ALONE
            or any(path in layout.alone or not _one_token_axis(value) for path, value in touched(graph, sites))
        )
        program = compile_task(graph, origin, sites, together=layout.packed and not alone)
        self.routes[id(program)] = routes(program, sites, layout.moments)
        return program, alone

    def _tokens(self, task: Prepared) -> tuple[int, set[tuple[int, ...]]]:
        """The tokens that a task has to itself, and the prompts of which it needs a run that others may share."""
        own = 0
        prompts = set()
        for route in self.routes[id(task.program)]:
            prompt = task.member.prompts[route.visit.run]
            start = route.start(task.member, self._model.layout.moments.causal)
            own += len(prompt) - start if route.visit.writes else 0
            if not route.visit.writes or start:
                prompts.add(prompt)
        return own, prompts


def _one_token_axis(value: SiteValue) -> bool:
    if isinstance(value, tuple):
        return all(_one_token_axis(item) for item in value)
    return not isinstance(value, SiteTensor) or len(value.token_axes) == 1
