"""Measures how runs of a model can go together: random prompts in company against each prompt alone, site by site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from inspect import signature
from typing import Any, TypeAlias

import torch
from torch import nn
from transformers import PreTrainedModel

from ndif_batch.engine import attention, rowed
from ndif_batch.engine.access import SiteAccess
from ndif_batch.engine.blocks import Block, Moments
from ndif_batch.engine.cache import Cache, Region
from ndif_batch.engine.given import Given, stacked
from ndif_batch.engine.pack import Lanes, Pack
from ndif_batch.engine.places import number_run_by_run, watching_numbers
from ndif_batch.engine.rows import on_one_axis
from ndif_batch.graph.sites import SiteMap, SiteTensor, SiteValue, tensors_of
from ndif_batch.models.probe import decoder_inputs, entry_device, floating_dtype, is_inside, watching

LENGTHS = (5, 9, 5, 2)
"""Prompt lengths of the packed trial: two equal ones share a block, the others do not."""

ROWS = (5, 5, 5)
"""Prompt lengths of the trial in rows."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Largest deviation of a run's values in company, as a share of their norm.

Another order of additions is far below it even after a hundred layers; a run that sees a neighbour is far above.
"""


Values: TypeAlias = dict[str, Any]
"""The value of every site in one pass."""


class Arrangement(StrEnum):
    """Where the tokens of several runs lie: on one axis, on an axis each if they are equally many, or apart.

    Runs that begin with tensors are ``stacked``: on the axis of the batch, as if each were one token.
    """

    PACKED = "packed"
    STACKED = "stacked"
    ROWS = "rows"
    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class Layout:
    """How runs of a model go together, and the ``reason`` if they cannot be packed.

    ``alone`` are the tensors (of a site, with the items that lead there) that do not hold each run's own values when
    runs go together: tasks that touch one run alone. ``blocks`` are those between which tokens can come and go,
    ``last`` the module whose output the head takes in.
    """

    arrangement: Arrangement
    reason: str | None = None
    alone: frozenset[tuple[str, tuple[int, ...]]] = field(default_factory=frozenset)
    moments: Moments = field(default_factory=Moments)
    blocks: tuple[Block, ...] = ()
    last: str | None = None

    def __str__(self) -> str:
        return self.arrangement if self.reason is None else f"{self.arrangement}: {self.reason}"

    @property
    def packed(self) -> bool:
        """Whether all runs lie on one axis."""
        return self.arrangement in (Arrangement.PACKED, Arrangement.STACKED)

    @property
    def attends(self) -> bool:
        """Whether attention is ours, so that runs of any length lie on one axis of tokens."""
        return self.arrangement is Arrangement.PACKED


def forward(
    model: nn.Module,
    pack: Callable[[], Pack],
    *,
    packed: bool,
    watch: attention.Watch | None = None,
    cache: Cache | None = None,
    region: Region | None = None,
) -> Any:
    """One pass over a pack; ``packed`` says that attention is ours and positions start again with each run.

    ``watch`` and ``cache`` are as for :func:`~ndif_batch.engine.attention.attending`. Where attention is the model's,
    ``region`` has its own cache of what the one run of the pass has seen, and is given that which it has then.
    """
    device = entry_device(model)
    given = pack().given()
    if given:
        return model(**stacked(given, device, floating_dtype(model)))
    assert isinstance(model, PreTrainedModel)
    ids = pack().token_ids(device)
    named = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False, **decoder_inputs(model, ids)}
    if region is not None and not packed:
        return _with_own_cache(model, region, ids)
    if not packed:
        return model(**named)
    with attention.attending(pack, watch, cache):
        return model(**named, position_ids=pack().position_ids(device))


def _with_own_cache(model: PreTrainedModel, region: Region, ids: torch.Tensor) -> Any:
    seen = {} if region.own is None else {_cache_name(model): region.own}
    mask = ids.new_ones(1, region.used)
    prepared: Any = model.prepare_inputs_for_generation
    given = prepared(ids, attention_mask=mask, use_cache=True, is_first_iteration=not seen, **seen)
    output = model(**given)
    region.own = output[_cache_name(model)]
    return output


def _cache_name(model: PreTrainedModel) -> str:
    return next(name for name in ("cache_params", "past_key_values") if name in signature(model.forward).parameters)


def measure_layout(
    model: PreTrainedModel,
    sites: SiteMap,
    twin: PreTrainedModel | None = None,
    whole: Callable[[Values], Values] = lambda values: values,
) -> tuple[Layout, SiteMap]:
    """Tries the packed layout, then rows, and leaves the model set up for the layout that was found.

    Gives the layout, and the sites as that layout has them: attention of ours hands on no weights, so that the second
    item of what an attention module puts out is nothing; sites inside attention that is not ours are refused. Of a
    model that is split, ``twin`` is the one in one piece, and ``whole`` joins the parts of values.
    """
    native = model.config._attn_implementation
    try:
        return _packed(model, sites, twin or model, whole)
    except Exception as error:  # noqa: BLE001  any failure of a foreign model means that it cannot be packed
        model.set_attn_implementation(native)
        reason = _first_line(error)
    closed = "no site is inside attention"
    if any(is_inside(path) for path in sites.sites):
        try:
            return _in_rows(model, sites, reason, twin or model, whole, rowed.NAME)
        except Exception as error:  # noqa: BLE001  as above
            model.set_attn_implementation(native)
            closed = f"its attention cannot be replaced: {_first_line(error)}"
    sites = _refused_inside(sites, closed)
    try:
        return _in_rows(model, sites, reason, twin or model, whole)
    except Exception as error:  # noqa: BLE001  nor can it run in rows
        return Layout(Arrangement.ALONE, f"{reason}; in rows: {_first_line(error)}"), sites


def _refused_inside(sites: SiteMap, reason: str) -> SiteMap:
    """The sites of which those inside attention are refused."""
    found = {path: replace(site, refused=reason) if is_inside(path) else site for path, site in sites.sites.items()}
    return replace(sites, sites=found)


def measure_stacked(model: nn.Module, sites: SiteMap, items: Sequence[Given]) -> Layout:
    """How runs that begin with tensors go together: stacked, if they are the same so as alone."""
    pack = Pack.of(Lanes.of(items))
    try:
        mixed = _mixed(sites, pack, each_alone(model, items), _values(model, pack, packed=False))
    except Exception as error:  # noqa: BLE001  any failure of a foreign model means that it takes one at a time
        return Layout(Arrangement.ALONE, _first_line(error))
    return Layout(Arrangement.STACKED, alone=mixed)


def _packed(
    model: PreTrainedModel, sites: SiteMap, twin: PreTrainedModel, whole: Callable[[Values], Values]
) -> tuple[Layout, SiteMap]:
    runs = random_prompts(sites.vocabulary, LENGTHS)
    alone = each_alone(twin, runs)
    model.set_attn_implementation(attention.NAME)
    pack = Pack.of(Lanes.of(runs))
    with watching_numbers(pack.tokens) as counting:
        together = whole(_values(model, pack, packed=True))
    if counting:
        for path in sorted(counting):
            number_run_by_run(model.get_submodule(path))
        together = whole(_values(model, pack, packed=True))
    if model.config._attn_implementation != attention.NAME:
        raise TypeError("its attention cannot be replaced")
    alone = [_with_inside(own, model, run, packed=True) for own, run in zip(alone, runs, strict=True)]
    sites = _without_absent(sites, together)
    return Layout(Arrangement.PACKED, alone=_mixed(sites, pack, alone, together)), sites


def _with_inside(alone: Values, model: PreTrainedModel, run: Sequence[int], *, packed: bool) -> Values:
    """The values of a run alone, and those inside attention, which the model's own did not show."""
    values = _values(model, Pack.of(Lanes.of([run]), in_rows=not packed), packed=packed)
    return {**alone, **{path: value for path, value in values.items() if is_inside(path)}}


def _in_rows(
    model: PreTrainedModel,
    sites: SiteMap,
    reason: str,
    twin: PreTrainedModel,
    whole: Callable[[Values], Values],
    ours: str | None = None,
) -> tuple[Layout, SiteMap]:
    runs = random_prompts(sites.vocabulary, ROWS)
    pack = Pack.of(Lanes.of(runs), in_rows=True)
    alone = each_alone(twin, runs)
    if ours is not None:
        model.set_attn_implementation(ours)
    together = whole(_values(model, pack, packed=False))
    if ours is not None:
        alone = [_with_inside(own, model, run, packed=False) for own, run in zip(alone, runs, strict=True)]
        sites = _without_absent(sites, together)
    return Layout(Arrangement.ROWS, reason, _mixed(sites, pack, alone, together)), sites


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _without_absent(sites: SiteMap, values: dict[str, Any]) -> SiteMap:
    """The sites without the items of tuples that are ``None`` among ``values``."""

    def present(shape: SiteValue, value: Any) -> SiteValue:
        if isinstance(shape, tuple) and isinstance(value, tuple | list) and len(value) == len(shape):
            return tuple(present(part, item) for part, item in zip(shape, value, strict=True))
        return shape if value is not None else None

    kept = {path: replace(site, value=present(site.value, values.get(path))) for path, site in sites.sites.items()}
    return replace(sites, sites=kept)


def random_prompts(vocabulary: int, lengths: Sequence[int]) -> list[list[int]]:
    """Prompts of so many tokens, the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths]


def each_alone(model: nn.Module, runs: Sequence[Sequence[int] | Given]) -> list[Values]:
    """The value of every site in a pass of each run."""
    return [_values(model, Pack.of(Lanes.of([run])), packed=False) for run in runs]


def _values(model: nn.Module, pack: Pack, *, packed: bool) -> Values:
    values: Values = {}
    with watching(model, values.__setitem__), torch.no_grad():
        forward(model, lambda: pack, packed=packed)
    return values


def _mixed(
    sites: SiteMap, pack: Pack, alone: Sequence[dict[str, Any]], together: dict[str, Any]
) -> frozenset[tuple[str, tuple[int, ...]]]:
    """The tensors that do not hold each run's own values.

    ``ValueError`` if one of them is the last of all that are hidden states, or what comes out in the end.
    """
    usable = [site for site in sites.sites.values() if site.refused is None]
    mixed = frozenset(
        (site.path, items)
        for site in usable
        for items, shape in tensors_of(site.value)
        if not _is_each_ones(shape, pack, [at(own, site.path, items) for own in alone], at(together, site.path, items))
    )
    ends = [(site.order, site.path, items) for site in usable for items, one in tensors_of(site.value) if _goes_on(one)]
    last = max(usable, key=lambda site: site.order).path
    if (max(ends)[1:] in mixed) if ends else any(path == last for path, _ in mixed):
        raise ValueError(
            f"{'packed runs' if pack.rows == 1 else 'they'} differ from runs alone at {max(ends)[1] if ends else last}"
        )
    return mixed


def _goes_on(tensor: SiteTensor) -> bool:
    """Whether this could be hidden states: the tokens come first, but for a batch of one."""
    return tensor.token_axes in ((0,), (1,))


def at(values: Mapping[str, Any], path: str, items: tuple[int, ...]) -> Any:
    """The item of a site's value that ``items`` lead to; ``None`` if there is none."""
    value = values.get(path)
    for item in items:
        value = value[item] if isinstance(value, tuple | list) and item < len(value) else None
    return value


def _is_each_ones(shape: SiteTensor, pack: Pack, alone: Sequence[Any], together: Any) -> bool:
    if len(shape.token_axes) != 1 or not isinstance(together, torch.Tensor):
        return False
    together = on_one_axis(together, shape, pack.tokens, pack.rows)
    longest = None if shape.seen in shape.token_axes else int(pack.seen.max())
    if tuple(together.shape) != shape.at(pack.tokens, longest):
        return False
    access = SiteAccess(together, shape, pack)
    return all(equal(access.take_one(lane, ()), own) for lane, own in enumerate(alone))


def equal(seen: torch.Tensor, alone: Any) -> bool:
    """Whether what a run has in company is what it has alone, but for rounding."""
    if not isinstance(alone, torch.Tensor) or seen.shape != alone.shape:
        return False
    seen = seen.to(alone.device)
    if not alone.is_floating_point():
        return torch.equal(seen, alone)
    return deviation(seen, alone) <= TOLERANCE[alone.dtype]


def deviation(seen: torch.Tensor, alone: torch.Tensor) -> float:
    """How far two tensors of one shape are apart, as a share of the norm of the second."""
    apart, norm = (torch.linalg.vector_norm(one) for one in (seen.double() - alone.double(), alone.double()))
    return float(apart / norm) if apart else 0.0
