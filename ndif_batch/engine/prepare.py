"""Makes tasks ready to run: checks what they bind, compiles what they have in common once, tells what each needs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ndif_batch.engine.batches import Need, Prepared, WayBack
from ndif_batch.engine.blocks import Moments, births_of, find_blocks
from ndif_batch.engine.forms import Filled, Forms
from ndif_batch.engine.given import Given, Prompted
from ndif_batch.engine.histories import exact
from ndif_batch.engine.layout import Arrangement
from ndif_batch.engine.loaded import Outline
from ndif_batch.engine.memory import NOTED, Live, bytes_a_token, live_bytes
from ndif_batch.engine.program import Program, touched
from ndif_batch.engine.routes import Reaches, Route, routes
from ndif_batch.engine.schedule import order_of
from ndif_batch.engine.skeletons import Skeleton, Skeletons
from ndif_batch.engine.tasks import Member
from ndif_batch.errors import GraphError, NdifBatchError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.bind import bind, prompt_of, require_bound
from ndif_batch.graph.infer import infer
from ndif_batch.graph.nodes import Graph, Inputs, Prompt, Run, Value
from ndif_batch.graph.validate import constants as digests
from ndif_batch.models.inputs import check_inputs
from ndif_batch.models.probe import dtype_name
from ndif_batch.models.tokenizer import check_room, checked_prompt, resolve
from ndif_batch.sweep.task import Task


@dataclass(frozen=True, slots=True)
class _Made:
    """A program, whether its tasks run alone, and what tells how large their values are but for their prompts."""

    program: Program
    skeleton: Skeleton
    alone: bool
    sizing: tuple[Hashable, ...]


class Preparation:
    """Prepares tasks for one model; ``solo`` runs every task alone."""

    def __init__(self, model: Outline, *, solo: bool, constants: Mapping[str, torch.Tensor]) -> None:
        self._model = model
        self._constants = constants
        self._solo = solo
        self._forms = Forms(model.sites)
        self._skeletons = Skeletons(model.sites)
        self._graphs: dict[int, Filled] = {}
        self._programs: dict[Hashable, _Made] = {}
        self._prompts: dict[tuple[str, str | Prompt], Prompted] = {}
        self._lives: dict[Hashable, Live] = {}
        self._reaches: Reaches = {}
        paths = find_blocks(model.sites)
        self._blocks = Moments(births_of(paths, model.sites) if paths else ())
        self.routes: dict[int, tuple[Route, ...]] = {}

    def task(self, index: int, task: Task) -> Prepared:
        """Task ``index`` of those given; an ``NdifBatchError`` says what is wrong with it."""
        filled, bindings = self._filled(task.graph), task.bindings
        if bindings.keys() != task.graph.params.keys():
            require_bound(task.graph, bindings)
        if str in map(type, bindings.values()):
            bindings = resolve(task.graph.params, bindings, self._model.tokenizer, self._model.sites)
        prompts = tuple([self._prompt(run, bindings) for run in task.graph.runs])
        if filled.generates:
            check_room(task.graph, [*map(len, prompts)], self._model.sites)
        values = {**filled.constants, **{own: bindings[name] for name, own in filled.params}}
        made = self._made(filled, bindings, values, prompts)
        member = Member(index, task.seed, values, prompts, filled.names)
        return Prepared(made.program, member, made.alone, self._need(made, member))

    def _prompt(self, run: Run, bindings: Mapping[str, Value]) -> Prompted:
        prompt = prompt_of(run, bindings)
        found = self._prompts.get((run.name, prompt))
        if found is None:
            checked = checked_prompt(run, bindings, self._model.tokenizer, self._model.sites)
            found = self._given(run, checked) if isinstance(checked, Inputs) else checked
            self._prompts[run.name, prompt] = found
        return found

    def _given(self, run: Run, prompt: Inputs) -> Given:
        """A prompt of tensors, checked once more if these are there: what is wrong with it is its task's own error."""
        if self._constants:
            missing = next((one for one in prompt.digests.values() if one not in self._constants), None)
            if missing is not None:
                raise GraphError(f"run {run.name!r}: the content of tensor {missing[:12]} is missing", rule="tensor")
            known = self._known(prompt.digests.values())
            check_inputs(f"the prompt of run {run.name!r}", prompt, self._model.sites, known)
        return Given(prompt, self._constants)

    def _filled(self, graph: Graph) -> Filled:
        """The form of a graph; it holds the graph, so that no other can come to have its identity."""
        found = self._graphs.get(id(graph))
        if found is None:
            found = self._graphs[id(graph)] = self._forms.of(graph)
        return found

    def _made(
        self,
        filled: Filled,
        bindings: Mapping[str, Value],
        values: Mapping[str, Value],
        prompts: tuple[Prompted, ...],
    ) -> _Made:
        form = filled.form
        sites = tuple([site.format_map(bindings) if "{" in site else site for site in filled.sites])
        apart = () if self._model.layout.packed else tuple(map(len, prompts))
        key = (form.number, sites, tuple([exact(values[name]) for name in form.settled]), apart)
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = self._compiled(filled, sites, values)
        return found

    def _compiled(self, filled: Filled, sites: tuple[str, ...], values: Mapping[str, Value]) -> _Made:
        layout, form = self._model.layout, filled.form
        skeleton = self._skeletons.of(form, sites, together=layout.packed)
        program, told = skeleton.at(sites, values, self._model.sites)
        if filled.generates:
            self._check_generation()
        alone = self._solo or layout.arrangement is Arrangement.ALONE or (filled.generates and not layout.packed)
        if not alone and layout.alone:
            alone = not layout.alone.isdisjoint(touched(program, self._model.sites))
        if alone and layout.packed:
            skeleton = self._skeletons.of(form, sites, together=False)
            program, told = skeleton.at(sites, values, self._model.sites)
        self.routes[id(program)] = routes(program, self._model.sites, layout.moments, told, self._reaches)
        return _Made(program, skeleton, alone, tuple([values[name] for name in form.sizing]))

    def _check_generation(self) -> None:
        """``GraphError`` if this model cannot generate here."""
        why = self._model.generates_not
        if why is not None:
            raise GraphError(f"the model cannot generate here: {why}", rule="not-in-this-version")

    def _need(self, made: _Made, member: Member) -> Need:
        births = self._model.layout.moments.births
        tokens = positions = 0
        shares: list[tuple[Hashable, int]] = []
        for route in self.routes[id(made.program)]:
            if route.visit.run >= len(member.prompts):
                continue
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
        return Need(
            tokens,
            frozenset(shares),
            positions,
            self._live(made, member),
            self._back(made.program, member),
            made.program.most_after_first(member.length),
        )

    def _back(self, program: Program, member: Member) -> WayBack:
        """What the gradients of a task need on their way back through the runs that are its own."""
        found, sites = WayBack(), self._model.sites
        for route in self.routes[id(program)] if program.differentiated else ():
            visit = route.visit
            if visit.apart and visit.stage in program.differentiated:
                length = member.length(visit.run)
                touched = [program.graph.nodes[i] for i in (*visit.targets, *visit.writes)]
                first = min(order_of(node, sites) for node in touched)
                through = self._blocks.through(visit.depth) - max(self._blocks.birth(first), 0)
                reach = route.reach(member)
                noted = sum(bytes_a_token(sites, str(program.graph.nodes[i].site)) for i in visit.targets)
                own = length - reach.start
                found += WayBack(own * through, own, len(reach.kept), NOTED * noted * length)
        return found

    def _live(self, made: _Made, member: Member) -> Live:
        """Bytes of the values of a task: taken to be equal at sites of equal kinds, for prompts of about one length."""
        lengths = tuple([_rounded_up(len(prompt)) for prompt in member.prompts])
        key = (id(made.skeleton), made.sizing, lengths)
        found = self._lives.get(key)
        if found is None:
            values = self._values(made, member, lengths) or self._values(made, member, [*map(len, member.prompts)])
            found = live_bytes(made.program, dict(zip(made.skeleton.form.origin, values, strict=False)))
            found = replace(found, between=found.between + self._cached(made.program, lengths))
            if values:
                self._lives[key] = found
        return found

    def _cached(self, program: Program, lengths: Sequence[int]) -> int:
        """Bytes of the keys and values of a task's runs that generate."""
        tokens = sum(
            lengths[route.visit.run] + route.further
            for route in self.routes[id(program)]
            if route.further and route.visit.run < len(lengths)
        )
        return int(tokens * self._model.footprint.cached)

    def _values(self, made: _Made, member: Member, lengths: Sequence[int]) -> list[Abstract]:
        """What the nodes of a task will be for prompts of some lengths; nothing if that is wrong."""
        bound = bind(made.skeleton.graph, member.bindings)
        runs = tuple([replace(run, prompt=(0,) * length) for run, length in zip(bound.runs, lengths, strict=True)])
        try:
            return infer(replace(bound, runs=runs), self._model.sites, self._shapes(bound))
        except NdifBatchError:
            return []

    def _shapes(self, bound: Graph) -> dict[str, AbstractTensor]:
        return self._known(digest for digest in digests(bound) if digest in self._constants)

    def _known(self, wanted: Iterable[str]) -> dict[str, AbstractTensor]:
        given = {digest: self._constants[digest] for digest in wanted}
        return {digest: AbstractTensor(tuple(one.shape), dtype_name(one.dtype)) for digest, one in given.items()}


def _rounded_up(length: int) -> int:
    """At most a quarter more, so that prompts of about equal length count as equal."""
    step = 1 << max(length.bit_length() - 3, 0)
    return -(-length // step) * step
