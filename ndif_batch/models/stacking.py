"""Measures models that take tensors: which axis of each site is the batch's, and what an item of it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from ndif_batch.errors import ModelError
from ndif_batch.graph.abstract import ITEM_BYTES
from ndif_batch.graph.sites import Site, SiteMap, SiteTensor, SiteValue
from ndif_batch.models.probe import dtype_name, entry_device, floating_dtype, outline, shapes_of_attention, watching

Tensors: TypeAlias = Mapping[str, torch.Tensor]

FLOPS_OF_A_WEIGHT = 2
"""What a token of a language model costs for each weight: a multiplication and an addition."""


def measure_stacking(module: nn.Module, example: Tensors) -> SiteMap:
    """The site map of a model that takes ``example``, one item of each input (``[1, …]``) on any device.

    ``None`` stands in a site's shape where two items are twice as long as one. Where an axis is longer in another way,
    or where the model takes no two items, the shape is that of one. ``ModelError`` if it does not take the one.
    """
    example = _placed(module, example)
    try:
        with FlopCounterMode(display=False) as counter:
            one = _trail(module, example)
    except Exception as error:
        raise ModelError(f"the model does not run on its example inputs: {_first_line(error)}") from error
    try:
        two = dict(_trail(module, {name: torch.cat([own, own]) for name, own in example.items()}))
    except Exception:  # noqa: BLE001  whatever stops a foreign model says that it takes one item at a time
        two = {}
    weights = dict(module.named_parameters(remove_duplicate=False))
    size = sum(weight.numel() for weight in module.parameters())
    return SiteMap(
        sites=_sites(one, two),
        modules=tuple(name for name, _ in module.named_modules() if name),
        weights={name: (tuple(weight.shape), dtype_name(weight.dtype)) for name, weight in weights.items()},
        vocabulary=0,
        max_tokens=1,
        inputs={name: SiteTensor((None, *own.shape[1:]), dtype_name(own.dtype)) for name, own in example.items()},
        input_tokens=max(1, round(counter.get_total_flops() / (FLOPS_OF_A_WEIGHT * max(1, size)))),
    )


def measure_empty_stacking(model: PreTrainedModel, example: Tensors) -> SiteMap:
    """The same of a transformers model on the meta device."""
    with shapes_of_attention(model) if model._can_set_attn_implementation() else nullcontext():
        return measure_stacking(model, example)


def _placed(module: nn.Module, example: Tensors) -> Tensors:
    """The example where a model takes it in, and in its precision."""
    dtype, device = floating_dtype(module), entry_device(module)
    return {name: own.to(device, dtype if own.is_floating_point() else own.dtype) for name, own in example.items()}


def _trail(module: nn.Module, inputs: Tensors) -> list[tuple[str, Any]]:
    trail: list[tuple[str, Any]] = []
    with watching(module, lambda path, value: trail.append((path, outline(value)))), torch.no_grad():
        module(**inputs)
    return [(path, value) for path, value in trail if path.endswith((".input", ".output"))]


def _sites(one: list[tuple[str, Any]], two: Mapping[str, Any]) -> dict[str, Site]:
    times = Counter(path for path, _ in one)
    sites: dict[str, Site] = {}
    for order, (path, value) in enumerate(one):
        if path not in sites:
            followed, refused = _followed(value, two.get(path)), None
            if times[path] > 1:
                refused = f"its module is called {times[path]} times in one forward pass"
            elif not _holds_tensor(followed):
                refused = "it holds no tensor of a type that graphs know"
            sites[path] = Site(path, order, followed, refused)
    return sites


def _followed(one: Any, two: Any) -> SiteValue:
    """What a site holds; ``two`` is what it holds for two items, if the model takes as many."""
    if isinstance(one, list):
        others = two if isinstance(two, list) and len(two) == len(one) else [None] * len(one)
        return tuple(_followed(a, b) for a, b in zip(one, others, strict=True))
    if one is None or one[1] not in ITEM_BYTES:
        return None
    shape, dtype = one
    longer = two[0] if isinstance(two, tuple) and len(two[0]) == len(shape) else shape
    pairs = list(zip(shape, longer, strict=True))
    followed = [None if pair == (1, 2) else pair[0] for pair in pairs]
    stacked = all(size is None or a == b for size, (a, b) in zip(followed, pairs, strict=True))
    return SiteTensor(tuple(followed) if stacked else shape, dtype)


def _holds_tensor(value: SiteValue) -> bool:
    return any(map(_holds_tensor, value)) if isinstance(value, tuple) else value is not None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
