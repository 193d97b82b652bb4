"""Measures whether a model can run packed: a pack of random prompts against each prompt alone, site by site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from ndif_batch.engine import attention
from ndif_batch.engine.pack import Pack, Segment
from ndif_batch.engine.views import view
from ndif_batch.graph.sites import SiteMap, SiteTensor, SiteValue
from ndif_batch.models.probe import entry_device, watching

LENGTHS = (5, 9, 5, 2)
"""Prompt lengths of the trial: two equal ones share a block, the others do not."""

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Largest deviation of a packed run's values, as a share of their norm.

Another order of additions is far below it even after a hundred layers; a run that sees a neighbour is far above.
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """How runs of a model go together: ``packed`` side by side, or each in its own pass for the ``reason`` given.

    ``alone`` are the sites at which a pack does not hold each run's own values: their tasks run alone.
    """

    packed: bool
    reason: str | None = None
    alone: frozenset[str] = field(default_factory=frozenset)


def forward(model: PreTrainedModel, pack: Pack, *, packed: bool) -> Any:
    """One pass over a pack; ``packed`` says that attention is ours and positions start again with each run."""
    ids = pack.token_ids
    if not packed:
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    with attention.attending(pack):
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=pack.positions, use_cache=False)


def measure_layout(model: PreTrainedModel, sites: SiteMap) -> tuple[Layout, SiteMap]:
    """Tries the packed layout and leaves the model set up for the layout that was found.

    Gives the layout, and the sites as that layout has them: packed attention makes no attention weights, so that the
    second item of what an attention module puts out is nothing.
    """
    native, whole = model.config._attn_implementation, sites
    runs = _random_prompts(sites.vocabulary)
    device = entry_device(model)
    alone = [_values(model, Pack.of([run], device), packed=False) for run in runs]
    try:
        model.set_attn_implementation(attention.NAME)
        pack = Pack.of(runs, device)
        together = _values(model, pack, packed=True)
        if model.config._attn_implementation != attention.NAME:
            raise TypeError("its attention cannot be replaced")
    except Exception as error:  # noqa: BLE001  any failure of a foreign model means that it cannot be packed
        model.set_attn_implementation(native)
        return Layout(packed=False, reason=str(error).splitlines()[0] if str(error) else type(error).__name__), sites
    sites = _without_absent(sites, together)
    mixed = frozenset(_mixed(sites, pack, alone, together))
    last = max((site for site in sites.sites.values() if site.refused is None), key=lambda site: site.order).path
    if last in mixed:
        model.set_attn_implementation(native)
        return Layout(packed=False, reason=f"packed runs differ from runs alone at {last}"), whole
    return Layout(packed=True, alone=mixed), sites


def _without_absent(sites: SiteMap, values: dict[str, Any]) -> SiteMap:
    """The sites without the items of tuples that are ``None`` among ``values``."""

    def present(shape: SiteValue, value: Any) -> SiteValue:
        if isinstance(shape, tuple) and isinstance(value, tuple | list) and len(value) == len(shape):
            return tuple(present(part, item) for part, item in zip(shape, value, strict=True))
        return shape if value is not None else None

    kept = {path: replace(site, value=present(site.value, values.get(path))) for path, site in sites.sites.items()}
    return replace(sites, sites=kept)


def _random_prompts(vocabulary: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in LENGTHS]


def _values(model: PreTrainedModel, pack: Pack, *, packed: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    with watching(model, values.__setitem__), torch.no_grad():
        forward(model, pack, packed=packed)
    return values


def _mixed(sites: SiteMap, pack: Pack, alone: Sequence[dict[str, Any]], together: dict[str, Any]) -> Iterator[str]:
    for path, site in sites.sites.items():
        if site.refused is not None:
            continue
        for segment, own in zip(pack.segments, alone, strict=True):
            if path not in together or not _equal(site.value, segment, own.get(path), together[path]):
                yield path
                break


def _equal(shape: SiteValue, segment: Segment, alone: Any, together: Any) -> bool:
    if isinstance(shape, tuple):
        return len(together) == len(alone) == len(shape) and all(
            _equal(part, segment, a, b) for part, a, b in zip(shape, alone, together, strict=True)
        )
    if not isinstance(shape, SiteTensor):
        return True
    if len(shape.token_axes) > 1 or not isinstance(together, torch.Tensor):
        return False
    try:
        seen = view(together, shape, segment)
    except RuntimeError:
        return False
    if seen.shape != alone.shape:
        return False
    seen = seen.to(alone.device)
    if not alone.is_floating_point():
        return torch.equal(seen, alone)
    deviation = torch.linalg.vector_norm(seen.double() - alone.double())
    return bool(deviation <= TOLERANCE[alone.dtype] * torch.linalg.vector_norm(alone.double()))
