"""Of what a model's blocks are made: which of their arguments follow the tokens, and what comes after attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import torch
from torch import nn

from ndif_batch.engine.blocks import Block, token_axes
from ndif_batch.engine.given import Given
from ndif_batch.engine.layout import Layout, forward
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.pack import Lanes, Pack
from ndif_batch.graph.sites import SiteMap, SiteTensor, SiteValue, tensors_of

LENGTHS = (7, 11)
"""Tokens of the two passes that show which arguments of a module have something for every token."""

ITEMS = (2, 3)
"""Items of the same two passes of a model that takes tensors: each costs as much as many tokens."""

_ATTENTION = ""
"""Among the paths of modules that are entered: attention looks at its pack."""


def measured(model: LoadedModel, paths: Sequence[str], items: Sequence[Given] = ()) -> Iterator[Block]:
    """The modules at ``paths`` as blocks, without tails; ``ValueError`` if their arguments cannot be told.

    ``items`` are prompts of a model that takes tensors.
    """
    lengths = ITEMS if items else LENGTHS
    short, long = (_arguments(model, paths, [*islice(cycle(items), n)] or [range(n)]) for n in lengths)
    for path in paths:
        (rest, named), (longer_rest, longer_named) = short[path], long[path]
        yield Block(path, token_axes(rest, longer_rest, lengths), token_axes(named, longer_named, lengths))


def with_tails(model: LoadedModel, layout: Layout) -> Layout:
    """The layout with the tails of its blocks, if all have one: whether they may be used has to be tried."""
    if model.split is not None or not layout.attends:
        return layout
    found = [tuple(_tail(model.sites, part)) for part in _parts(_entered(model), [b.path for b in layout.blocks])]
    if not all(found):
        return layout
    try:
        tails = {tail.path: tail for tail in measured(model, [path for paths in found for path in paths])}
    except ValueError:
        return layout
    blocks = [
        replace(block, tail=tuple([tails[path] for path in paths]))
        for block, paths in zip(layout.blocks, found, strict=True)
    ]
    orders = tuple([model.sites.site(f"{paths[0]}.input").order for paths in found])
    return replace(layout, blocks=tuple(blocks), moments=replace(layout.moments, tails=orders))


def run(model: LoadedModel, prompts: Iterable[Iterable[int] | Given]) -> None:
    """A packed pass over some prompts, whose tokens are taken modulo the vocabulary."""
    known = [one if isinstance(one, Given) else [token % model.sites.vocabulary for token in one] for one in prompts]
    pack = Pack.of(Lanes.of(known))
    with torch.no_grad():
        forward(model.module, lambda: pack, packed=True)


def _arguments(
    model: LoadedModel, paths: Sequence[str], prompts: Sequence[range | Given]
) -> dict[str, tuple[Any, dict[str, Any]]]:
    found: dict[str, tuple[Any, dict[str, Any]]] = {}

    def watch(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[path] = (args[1:], kwargs) if args else ((), dict(list(kwargs.items())[1:]))

        return model.submodule(path).register_forward_pre_hook(hook, with_kwargs=True)

    handles = [watch(path) for path in paths]
    try:
        run(model, prompts)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _entered(model: LoadedModel) -> list[str]:
    """The modules of a pass in the order in which they are entered, and ``_ATTENTION`` where that is computed."""
    entered: list[str] = []
    pack = Pack.of(Lanes.of([[token % model.sites.vocabulary for token in range(LENGTHS[0])]]))

    def seen() -> Pack:
        entered.append(_ATTENTION)
        return pack

    def watch(path: str) -> Any:
        return lambda module, args: entered.append(path)

    handles = [module.register_forward_pre_hook(watch(path)) for path, module in model.module.named_modules() if path]
    try:
        with torch.no_grad():
            forward(model.module, seen, packed=True)
    finally:
        for handle in handles:
            handle.remove()
    return entered


def _parts(entered: Sequence[str], blocks: Sequence[str]) -> Iterator[Sequence[str]]:
    """What is entered in each block after the last attention in it; nothing if there is none."""
    for path in blocks:
        within = f"{path}."
        begin = entered.index(path) + 1
        end = next((i for i in range(begin, len(entered)) if not (entered[i] or within).startswith(within)), None)
        own = entered[begin:end]
        yield own[len(own) - own[::-1].index(_ATTENTION) :] if _ATTENTION in own else ()


def _tail(sites: SiteMap, entered: Sequence[str]) -> Iterator[str]:
    """The largest of the modules ``entered`` that have a weight matrix and give something for each token."""
    taken = ""
    for path in entered:
        if taken and path.startswith(f"{taken}."):
            continue
        ends = [sites.sites.get(f"{path}.{leaf}") for leaf in ("input", "output")]
        if all(end is not None and end.refused is None and _by_token(end.value) for end in ends) and any(
            weight.startswith(f"{path}.") and len(shape) > 1 for weight, (shape, _) in sites.weights.items()
        ):
            taken = path
            yield path


def _by_token(value: SiteValue) -> bool:
    first = value[0] if isinstance(value, tuple) and value else value
    hidden = isinstance(first, SiteTensor) and len(first.shape) == 3 and first.token_axes == (1,)
    return hidden and all(len(tensor.token_axes) < 2 for _, tensor in tensors_of(value))
