"""One forward pass over the runs of many tasks: hooks at the sites that they touch, an end where nobody needs more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ndif_batch.engine.access import SiteAccess
from ndif_batch.engine.attention import attending
from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Block, along_tokens, find_blocks
from ndif_batch.engine.bounds import check_places
from ndif_batch.engine.cache import Cache
from ndif_batch.engine.checkpoints import Again, Checkpoints
from ndif_batch.engine.inside import Attended, Changed, Repeated, Seats, SeenSeats, Touched, touching
from ndif_batch.engine.layout import forward
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.pack import Numbers, Pack
from ndif_batch.engine.plan import PassPlan
from ndif_batch.engine.rows import in_rows, on_one_axis
from ndif_batch.engine.saves import in_main_memory
from ndif_batch.engine.schedule import END
from ndif_batch.engine.vectorised import uploaded
from ndif_batch.graph.sites import ATTENTION, Site, SiteTensor, SiteValue
from ndif_batch.models.probe import first_argument, with_first_argument


class _PassEnd(Exception):  # noqa: N818  not an error: nobody needs what comes after
    """Raised inside the model where a pass is over."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How many tokens a pass computed, and in which lanes (``[lanes]``, in main memory as saves are) a branch held
    what is not finite: NaN or infinity. ``None`` if there was no branch.
    """

    tokens: int
    unsound: torch.Tensor | None = None


def run_pass(model: LoadedModel, plan: PassPlan, cache: Cache | None = None, *, checkpointed: bool = False) -> Ran:
    """One forward pass; the cohorts have their values and saves afterwards.

    ``cache`` has the keys and values of runs that generate. ``checkpointed`` is for gradients: blocks keep less, and
    are computed again on the way back.
    """
    going = _Pass(model, plan, checkpointed=checkpointed)
    with going.hooks(), torch.set_grad_enabled(plan.differentiated), suppress(_PassEnd):
        region = None if not plan.pasts or plan.pasts[0] is None else plan.pasts[0].region
        output = forward(
            model.module,
            lambda: going.pack,
            packed=model.layout.packed,
            watch=going.watch,
            cache=cache,
            region=region,
        )
        going.end(output.logits)
    if going.unsound is None:
        return Ran(going.tokens)
    unsound = torch.isnan(going.unsound).int()
    unsound = unsound if model.split is None else model.split.most(unsound)
    borrow, trunks = (uploaded(of_lane, unsound.device) for of_lane in (plan.lanes.start > 0, plan.lanes.trunk))
    unsound = unsound * borrow
    for _ in range(plan.lanes.depth - 1):
        unsound = torch.maximum(unsound, unsound[trunks])
    return Ran(going.tokens, in_main_memory(unsound))


def apply_module(module: nn.Module, args: tuple[Any, ...]) -> Any:
    """Applies one of the model's modules to values of a graph: no site is touched by it."""
    if isinstance(module, nn.Embedding):
        check_places(args[0], module.num_embeddings)
    token = _applying.set(True)
    try:
        return module(*args)
    finally:
        _applying.reset(token)


_applying: ContextVar[bool] = ContextVar("applying", default=False)


class _Pass:
    """The hooks of one pass, and the pack as it is at each moment."""

    def __init__(self, model: LoadedModel, plan: PassPlan, *, checkpointed: bool) -> None:
        self._model = model
        self._plan = plan
        self._moments = model.layout.moments
        self._blocks = {block.path: block for block in model.layout.blocks}
        self.pack = Pack.of(plan.lanes, in_rows=not model.layout.packed)
        self._beginning = self.tokens = self.pack.tokens
        self._present = plan.birth == FROM_THE_BEGINNING
        self._arguments: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self._aside: Any = None
        self.unsound: torch.Tensor | None = None
        self._inside = {
            id(model.submodule(path)): path for path in self._paths() if f"{path}.{ATTENTION[0]}" in self.sites
        }
        self._checkpoints = Checkpoints(self._whole_blocks() if checkpointed else (), model.submodule, self._again)

    def watch(self, pack: Pack, values: torch.Tensor) -> None:
        """Remembers which branches hold what is not finite: attention multiplies it by 0 where it is not looked at.

        That is NaN, at positions before the branch, too: those that it borrows. Here the same makes NaN of a lane's 0.
        """
        nothing = values[0].sum((0, 2), dtype=torch.float32) * 0
        if self.unsound is None:
            self.unsound = torch.zeros(len(pack.lanes.prompts), device=values.device)
        there = self.unsound.device
        self.unsound.index_add_(0, pack.owners(there), nothing.to(there))

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """The model with this pass's hooks."""
        handles = []
        for path in self._paths():
            module = self._model.submodule(path)
            handles.append(module.register_forward_pre_hook(self._entering(path), with_kwargs=True))
            handles.append(module.register_forward_hook(self._leaving(path)))
        try:
            with self._checkpoints.in_place(), touching(self._touched_in):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _whole_blocks(self) -> list[str]:
        """Paths of the blocks in which the pass does not end."""
        ends = {path: self.sites[f"{path}.output"].order for path in find_blocks(self._model.sites)}
        return [path for path, order in ends.items() if order <= self._plan.depth]

    def _again(self) -> Again:
        """Attention as it is now, for a block that is computed again later."""
        pack = self.pack

        @contextmanager
        def around(handed_on: Mapping[str, Any]) -> Iterator[None]:
            ours = attending(lambda: pack) if self._model.layout.packed else nullcontext()
            with ours, touching(lambda module: Repeated(self._inside.get(id(module), ""), handed_on)):
                yield

        return around

    def _touched_in(self, module: nn.Module) -> Touched | None:
        path = None if _applying.get() else self._inside.get(id(module))
        return None if path is None else _TouchedInside(self, path)

    def _paths(self) -> list[str]:
        """Every module at which there is something to do."""
        orders = {*self._plan.due, self._plan.depth}
        paths = [site.path.rpartition(".")[0] for site in self.sites.values() if site.order in orders]
        ends = [path for path in (self._model.layout.last, self._model.sites.head) if path is not None]
        return list(dict.fromkeys([*paths, *self._blocks, *ends]))

    @property
    def sites(self) -> Mapping[str, Site]:
        """Those of the model."""
        return self._model.sites.sites

    def _entering(self, path: str) -> Callable[..., Any]:
        site = self.sites[f"{path}.input"]
        is_head = path == self._model.sites.head

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if _applying.get():
                return None
            given = first_argument(args, kwargs)
            value = given if self._aside is None or not is_head else self._aside
            value = self._born(site, value)
            if site.order == self._moments.narrow:
                value = self._narrowed(site, value)
            value = self.visited(site, value)
            if path in self._blocks and self.pack.origin is not None:
                return self._with_rest(self._blocks[path], value, args, kwargs)
            return None if value is given else with_first_argument(args, kwargs, value)

        return hook

    def _leaving(self, path: str) -> Callable[..., Any]:
        site = self.sites[f"{path}.output"]

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if _applying.get():
                return None
            value = self.visited(site, self._born(site, output))
            if path in self._blocks:
                value = self._thinned(site, value)
            if path == self._model.layout.last and self.pack.tokens != self._beginning:
                self._aside = value
                return value.new_zeros(value.shape[0], self._beginning, *value.shape[2:])
            return None if value is output else value

        return hook

    def end(self, logits: torch.Tensor) -> None:
        """Where the whole model has run: tokens are chosen from what it gives."""
        kind = SiteTensor((1, None, logits.shape[-1]), "float32")
        access = SiteAccess(on_one_axis(logits, kind, self.pack.tokens, self.pack.rows), kind, self.pack)
        self._advance(END, access)

    def touches(self, site: Site) -> bool:
        """Whether there is something to do at a site."""
        return site.order in self._plan.due or site.order == self._plan.depth

    def visit_pattern(self, site: Site, attended: Attended) -> Changed | None:
        """What tasks do with attention weights: only those of their own runs are computed."""
        changed = None
        with self._checkpoints.beside():
            own, pack, places = attended.of(self._lanes_at(site))
            access = SiteAccess(own.weights(), site.value, self.pack if pack is None else pack)
            self._advance(site.order, access)
            if access.written:
                changed = places, own.heads(access.value)
                self._checkpoints.hand_on(site.path, changed)
        if site.order == self._plan.depth:
            raise _PassEnd
        return changed

    def _lanes_at(self, site: Site) -> Numbers:
        """The lanes that are touched at a site; those that the pass was planned with."""
        touched = [cohort.lanes_at(self._plan.stage, site.order) for cohort in self._plan.due.get(site.order, ())]
        return np.concatenate([lanes for own in touched for lanes in own] or [self.pack.ordered[:1]])

    def _advance(self, order: int, access: SiteAccess) -> None:
        waiting = self._plan.due.get(order, ())
        while waiting:
            waiting = [cohort for cohort in waiting if cohort.advance(self._plan.stage, order, access)]

    def visited(self, site: Site, value: Any, seats: Seats | None = None) -> Any:
        """What a site holds after what is done there. ``seats`` say where tokens lie, if not as in the pack."""
        if site.order in self._plan.due:
            value = self._touched(site, value, self._seats(site) if seats is None else seats)
        if site.order == self._plan.depth:
            raise _PassEnd
        return value

    def _seats(self, site: Site) -> Seats:
        """A model that is not packed has keys and values of earlier tokens before those of the pass."""
        past = not self._model.layout.packed and isinstance(site.value, SiteTensor) and site.value.seen is not None
        return SeenSeats(self.pack) if past else self.pack

    def _touched(self, site: Site, value: Any, seats: Seats) -> Any:
        with self._checkpoints.beside():
            tokens, rows = self.pack.tokens, self.pack.rows
            split = self._model.split
            whole = value if split is None else split.whole(site.path, value)
            access = SiteAccess(on_one_axis(whole, site.value, tokens, rows), site.value, seats)
            self._advance(site.order, access)
            if access.written:
                value = in_rows(access.value, whole, site.value, tokens, rows)
                value = value if split is None else split.own(site.path, value)
                self._checkpoints.hand_on(site.path, value)
        return value

    def _born(self, site: Site, value: Any) -> Any:
        """The value with the tokens of the branches that begin here."""
        if site.order not in self._moments.births:
            return value
        newborn = self._plan.birth == self._moments.births.index(site.order)
        if not newborn.any():
            return value
        self._present |= newborn
        self.tokens += int((self.pack.lanes.length - self.pack.lanes.start)[newborn].sum())
        return self._changed(self.pack.with_lanes(np.flatnonzero(self._present), self._model.device), site, value)

    def _thinned(self, site: Site, value: Any) -> Any:
        """The value without the tokens of lanes that nobody needs any more."""
        if site.order + 1 == self._moments.narrow:
            return self._narrowed(site, value)
        needed = self._present & (self._plan.exit > site.order)
        if needed.sum() == self._present.sum():
            return value
        self._present = needed
        return self._changed(self.pack.with_lanes(np.flatnonzero(needed), self._model.device), site, value)

    def _narrowed(self, site: Site, value: Any) -> Any:
        """The value at the positions that somebody needs in the end."""
        if self._plan.kept.size == self.pack.tokens:
            return value
        value = on_one_axis(value, site.value, self.pack.tokens, self.pack.rows)
        return self._changed(self.pack.with_positions(self._plan.kept, self._model.device), site, value)

    def _changed(self, made: tuple[Pack, torch.Tensor], site: Site, value: Any) -> Any:
        self.pack, index = made
        self._arguments.clear()
        return _selected(value, site.value, index)

    def _with_rest(self, block: Block, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A block's arguments for the tokens that are there now."""
        by_position = bool(args)
        args, kwargs = with_first_argument(args, kwargs, value)
        rest = args[1:] if by_position else ()
        named = kwargs if by_position else dict(list(kwargs.items())[1:])
        first = {} if by_position else dict(list(kwargs.items())[:1])
        rest = along_tokens(rest, block.rest, self._argument)
        return (*args[:1], *rest), {**first, **along_tokens(named, block.named, self._argument)}

    def _argument(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
        known = self._arguments.get((id(tensor), axis))
        if known is None:
            assert self.pack.origin is not None
            known = (tensor, tensor.index_select(axis, self.pack.origin.to(tensor.device)))
            self._arguments[id(tensor), axis] = known
        return known[1]


class _TouchedInside:
    """What a pass does inside one attention module."""

    def __init__(self, going: _Pass, path: str) -> None:
        self._going = going
        self._path = path

    def touches(self, name: str) -> bool:
        return self._going.touches(self._site(name))

    def visit(self, name: str, value: torch.Tensor, seats: Seats | None = None) -> torch.Tensor:
        found: torch.Tensor = self._going.visited(self._site(name), value, seats)
        return found

    def visit_pattern(self, attended: Attended) -> Changed | None:
        return self._going.visit_pattern(self._site("pattern"), attended)

    def _site(self, name: str) -> Site:
        return self._going.sites[f"{self._path}.{name}"]


def _selected(value: Any, shape: SiteValue, index: torch.Tensor) -> Any:
    if isinstance(shape, tuple):
        return type(value)(_selected(item, part, index) for item, part in zip(value, shape, strict=True))
    if isinstance(shape, SiteTensor) and shape.token_axes:
        return value.index_select(shape.token_axes[0], index.to(value.device))
    return value
