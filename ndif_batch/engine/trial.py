"""Tries whether tokens can come and go between a model's blocks: branches against the same runs alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch

from ndif_batch.engine.anatomy import measured, run, with_tails
from ndif_batch.engine.blocks import Moments, births_of, find_blocks, last_before_head
from ndif_batch.engine.engine import Engine
from ndif_batch.engine.given import Given
from ndif_batch.engine.layout import TOLERANCE, deviation, equal
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.errors import NdifBatchError
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Prompt, Run, SliceArg
from ndif_batch.graph.sites import Site, SiteMap, SiteTensor
from ndif_batch.models.probe import watching
from ndif_batch.sweep.task import Task

SAFE, MOST = 3, 0.5
"""Branches may deviate by so many times what runs side by side do, at most by this share: wrong values are as far off
as others."""

PROMPTS = (9, 5)
"""Prompt lengths of the trial; each has a branch at several blocks and positions."""


def measure_blocks(model: LoadedModel, items: Sequence[Given] = ()) -> LoadedModel:
    """The model with the layout in which tokens come and go, if it gives the values of runs alone.

    ``items`` are prompts of a model that takes tensors: there runs come and go.
    """
    sites = model.sites
    head = None if sites.head is None else sites.sites.get(f"{sites.head}.input")
    plain = replace(model.layout, moments=Moments(narrow=None if head is None else head.order))
    model = replace(model, layout=plain)
    paths = find_blocks(sites)
    mixed = {path for path, _ in plain.alone}
    if not plain.packed or not paths or mixed.intersection(f"{path}.output" for path in paths):
        return model
    try:
        blocks = tuple(measured(model, paths, items))
    except ValueError:
        return model
    births = births_of(paths, sites)
    moments = Moments(births, births[-1] + 1, not items and _is_causal(model, paths[-1]))
    whole = replace(plain, moments=moments, blocks=blocks)
    for layout in (with_tails(model, whole), whole):
        for last in dict.fromkeys((last_before_head(paths, sites), None)):
            tried = replace(model, layout=replace(layout, last=last))
            right = _is_right(tried, model, items)
            if right if model.split is None else all(model.split.ranks.all(right)):
                return tried
    return model


def _is_causal(model: LoadedModel, last: str) -> bool:
    """Whether another last token leaves all others as they are."""
    seen: list[torch.Tensor] = []

    def keep(path: str, value: Any) -> None:
        if path == f"{last}.output":
            seen.append(value[0] if isinstance(value, tuple) else value)

    with watching(model.module, keep):
        for end in (7, 8):
            run(model, [[3, 4, 5, 6, end]])
    return equal(seen[0][:, :-1], seen[1][:, :-1])


def _is_right(tried: LoadedModel, plain: LoadedModel, items: Sequence[Given]) -> bool:
    """Whether branches have the values of runs alone, up to rounding.

    In low precision rounding alone can be much in a deep model: what it is shows in the same runs side by side.
    """
    tasks = list(_tasks(tried, items))
    given = {digest: tensor for item in items for digest, tensor in item.constants.items()}
    try:
        alone = {outcome.index: outcome for outcome in Engine(plain).run(tasks, layout="solo", constants=given)}
        beside, branched = (
            {outcome.index: outcome for outcome in Engine(m).run(tasks, constants=given)} for m in (plain, tried)
        )
        for index, one in alone.items():
            if one.error or beside[index].error or branched[index].error:
                return False
            for name, value in one.saves.items():
                rounding = deviation(beside[index].saves[name], value)
                allowed = max(TOLERANCE[value.dtype], min(SAFE * rounding, MOST))
                if not deviation(branched[index].saves[name], value) <= allowed:
                    return False
    except (NdifBatchError, RuntimeError):
        return False
    return True


def _tasks(model: LoadedModel, items: Sequence[Given]) -> Iterator[Task]:
    """Noise at three positions of three blocks of two prompts; the next block and the end are saved."""
    sites = model.sites
    outputs = model.layout.moments.births[1:]
    by_order = {site.order: site for site in sites.sites.values()}
    end = max((site for site in by_order.values() if site.refused is None), key=lambda site: site.order)
    for place in sorted({0, len(outputs) // 2, len(outputs) - 1}):
        site, later = by_order[outputs[place]], by_order[outputs[min(place + 1, len(outputs) - 1)]]
        graphs = [_graph(site, [later, end])]
        if not items:
            graphs += [_graph(site, [one], part=True) for one in (later, end) if _is_by_token(one)]
        for prompt, length in _beginnings(sites, items, _hidden(site).shape[1]):
            for position in (0, length // 2, length - 1):
                for number, graph in enumerate(graphs):
                    yield Task(graph, {"prompt": prompt, "position": position}, seed=3 * position + number)


def _beginnings(sites: SiteMap, items: Sequence[Given], places: int | None) -> Iterator[tuple[Prompt, int]]:
    """Two prompts, and along how many positions they go through the blocks: items through so many ``places``."""
    for length, item in zip_longest(PROMPTS, items[: len(PROMPTS)]):
        if item is None:
            yield tuple((5 * token + length) % sites.vocabulary for token in range(length)), length
        else:
            yield item.inputs, places or 1


def _is_by_token(site: Site) -> bool:
    value = site.value[0] if isinstance(site.value, tuple) and site.value else site.value
    return isinstance(value, SiteTensor) and value.token_axes == (1,)


def _hidden(site: Site) -> SiteTensor:
    value = site.value[0] if isinstance(site.value, tuple) else site.value
    assert isinstance(value, SiteTensor)
    return value


def _graph(site: Site, saved: list[Site], *, part: bool = False) -> Graph:
    """``part`` saves the position alone that is written."""
    nested = isinstance(site.value, tuple)
    index = (*((0,) if nested else ()), SliceArg(), ParamRef("position"))
    nodes = [
        Node("randn", ((int(_hidden(site).shape[2] or 0),),)),
        Node("write", (NodeRef(0),), run=0, site=site.path, index=index),
    ]
    for number, where in enumerate(saved):
        nodes.append(Node("read", run=0, site=where.path))
        if isinstance(where.value, tuple):
            nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), (0,))))
        if part:
            nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), (SliceArg(), ParamRef("position")))))
        nodes.append(Node("save", (NodeRef(len(nodes) - 1),), name=f"save{number}"))
    params = {"prompt": ParamType.PROMPT, "position": ParamType.INT}
    return Graph(params, (Run("run", ParamRef("prompt")),), tuple(nodes))
