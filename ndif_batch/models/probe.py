"""Measures the site map: two short passes of different length show the order of the sites and the tokens' axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from ndif_batch.errors import ModelError
from ndif_batch.graph.abstract import ITEM_BYTES
from ndif_batch.graph.sites import ATTENTION, SEEN, Site, SiteMap, SiteTensor, SiteValue

LENGTHS = (7, 11)
"""Two coprime token counts: an axis that is 7 long in one pass and 11 in the other is the tokens'."""

SHAPES_ONLY = "ndif_batch_shapes"

TWO_LENGTHS = "attention is between tokens of the encoder and of the decoder, which are not equally many"


@dataclass(frozen=True, slots=True)
class Touch:
    """One time that a pass went through a site."""

    path: str
    value: Any


def measure_sites(model: PreTrainedModel) -> SiteMap:
    """The site map of a model on any device.

    ``ModelError`` if the model cannot run on token ids alone.
    """
    own = _trails(model)
    with shapes_of_attention(model):
        inside = _trails(model)
    short, long = (list(_with_attention(*trails)) for trails in zip(own, inside, strict=True))
    return _site_map(model, short, long)


def measure_empty(model: PreTrainedModel) -> SiteMap:
    """The site map of a model on the meta device, whose attention only has to give the right shapes."""
    experts = getattr(model.config, "_experts_implementation", None)
    if experts is not None:
        model.set_experts_implementation("batched_mm")
    try:
        with shapes_of_attention(model):
            return _site_map(model, *_trails(model))
    finally:
        if experts is not None:
            model.set_experts_implementation(experts)


def _trails(model: PreTrainedModel) -> tuple[list[Touch], list[Touch]]:
    try:
        short, long = (_trail(model, tokens) for tokens in LENGTHS)
    except Exception as error:
        raise ModelError(f"the model does not run on token ids alone: {error}") from error
    return short, long


def _with_attention(own: Iterable[Touch], inside: Iterable[Touch]) -> Iterator[Touch]:
    """A trail with what another one of the same model met inside attention, each after what came before it there."""
    after: dict[str, list[Touch]] = {}
    last = ""
    for touch in inside:
        if is_inside(touch.path):
            after.setdefault(last, []).append(touch)
        else:
            last = touch.path
    for touch in own:
        yield touch
        yield from after.pop(touch.path, ())


def _site_map(model: PreTrainedModel, short: list[Touch], long: list[Touch]) -> SiteMap:
    config = model.config.get_text_config()
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    start = decoder_start(model)
    sites = _join(short, long)
    if start is not None:
        sites = {path: replace(one, refused=TWO_LENGTHS) if is_inside(path) else one for path, one in sites.items()}
    return SiteMap(
        sites=sites,
        modules=tuple(name for name, _ in model.named_modules() if name),
        weights={
            name: (tuple(weight.shape), dtype_name(weight.dtype))
            for name, weight in model.named_parameters(remove_duplicate=False)
        },
        vocabulary=config.vocab_size,
        max_tokens=_longest_prompt(config),
        head=None if head is None else next((n for n, module in model.named_modules() if module is head), None),
        decoder_start=start,
    )


def is_inside(path: str) -> bool:
    """Whether a site is one inside attention."""
    return path.rpartition(".")[2] in ATTENTION


def _longest_prompt(config: Any) -> int:
    """Tokens that a model takes; ``dynamic`` rotary frequencies stretch what its configuration tells by a factor."""
    trained: int = getattr(config, "max_position_embeddings", None) or 2**31
    frequencies = getattr(config, "rope_parameters", None) or {}
    stretched = frequencies.get("rope_type") == "dynamic"
    return int(trained * frequencies.get("factor", 1.0)) if stretched else trained


@contextmanager
def shapes_of_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside the block the model's attention gives nothing but the right shapes, without a mask."""
    before = model.config._attn_implementation
    AttentionInterface.register(SHAPES_ONLY, _shapes_only)
    AttentionMaskInterface.register(SHAPES_ONLY, lambda *args, **kwargs: None)
    model.set_attn_implementation(SHAPES_ONLY)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def entry_device(model: nn.Module) -> torch.device:
    """Where inputs go in: the device on which the embedding computes, even if its weights rest elsewhere."""
    embedding = _embedding(model)
    device = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    if device is not None:
        return torch.device(device)
    return next((weight.device for weight in embedding.parameters()), torch.device("cpu"))


def _embedding(model: nn.Module) -> nn.Module:
    """What inputs go into first; the model itself if it does not tell."""
    try:
        found: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return model
    return found


def floating_dtype(model: nn.Module) -> torch.dtype:
    """In which precision a model computes."""
    return next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)


def decoder_inputs(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the decoder of an encoder-decoder begins with, beside ``ids`` of the encoder: its start token."""
    start = decoder_start(model)
    return {} if start is None else {"decoder_input_ids": torch.full_like(ids[:, :1], start)}


def decoder_start(model: PreTrainedModel) -> int | None:
    """The token that the decoder begins with; ``None`` of a model that has no encoder."""
    config = model.config
    if not config.is_encoder_decoder:
        return None
    found: int | None = getattr(config, "decoder_start_token_id", None)
    if found is None:
        found = getattr(config.get_text_config(decoder=True), "bos_token_id", None)
    if found is None:
        raise ModelError("the configuration does not say with which token the decoder begins")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def first_argument(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What ``input`` means: a module's first argument, by position or else by keyword."""
    return args[0] if args else next(iter(kwargs.values()), None)


def with_first_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A module's arguments with another first one."""
    if args:
        return (value, *args[1:]), kwargs
    return args, {**kwargs, next(iter(kwargs)): value}


def _shapes_only(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    pattern = query.new_zeros(*query.shape[:-1], key.shape[2])
    heads = query.new_zeros(*query.shape[:-1], value.shape[-1]).transpose(1, 2)
    for name, tensor in zip(ATTENTION, (query, key, value, pattern, heads), strict=True):
        noticed(module, name, tensor)
    return heads, None


_watched: ContextVar[Callable[[nn.Module, str, Any], None] | None] = ContextVar("watched", default=None)


def noticed(module: nn.Module, name: str, value: Any) -> None:
    """Tells who is :func:`watching` what a module's attention has at one of its sites."""
    seen = _watched.get()
    if seen is not None:
        seen(module, name, value)


def is_watched() -> bool:
    """Whether somebody is :func:`watching`."""
    return _watched.get() is not None


@contextmanager
def watching(model: nn.Module, seen: Callable[[str, Any], None]) -> Iterator[None]:
    """Inside the block, ``seen`` gets path and value of every site that a pass goes through, in order.

    Those inside attention only where a function computes it that tells them by :func:`noticed`.
    """
    handles = []
    paths = {id(module): path for path, module in model.named_modules()}

    def inside(module: nn.Module, name: str, value: Any) -> None:
        if id(module) in paths:
            seen(f"{paths[id(module)]}.{name}", value)

    def watch(path: str, module: nn.Module) -> None:
        def entered(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen(f"{path}.input", first_argument(args, kwargs))

        def left(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            seen(f"{path}.output", output)

        handles.append(module.register_forward_pre_hook(entered, with_kwargs=True))
        handles.append(module.register_forward_hook(left))

    for path, module in model.named_modules():
        if path:
            watch(path, module)
    token = _watched.set(inside)
    try:
        yield
    finally:
        _watched.reset(token)
        for handle in handles:
            handle.remove()


def _trail(model: PreTrainedModel, tokens: int) -> list[Touch]:
    ids = torch.arange(tokens, device=entry_device(model))[None] % model.config.get_text_config().vocab_size
    trail: list[Touch] = []
    with watching(model, lambda path, value: trail.append(Touch(path, outline(value)))), torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **decoder_inputs(model, ids))
    return trail


def outline(value: Any) -> Any:
    """Shape and dtype of every tensor of a value; items that are no tensors are ``None``."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), dtype_name(value.dtype)
    if type(value) in (tuple, list):
        return [outline(item) for item in value]
    return None


def _join(short: list[Touch], long: list[Touch]) -> dict[str, Site]:
    other = {touch.path: touch.value for touch in long}
    times: dict[str, int] = {}
    for touch in short:
        times[touch.path] = times.get(touch.path, 0) + 1
    sites: dict[str, Site] = {}
    for order, touch in enumerate(short):
        if touch.path in sites:
            continue
        refused = None
        value: SiteValue = None
        try:
            value = _follow(touch.value, other.get(touch.path))
            if isinstance(value, SiteTensor):
                value = replace(value, seen=SEEN.get(touch.path.rpartition(".")[2]))
        except ValueError as error:
            refused = str(error)
        if times[touch.path] > 1:
            refused = f"its module is called {times[touch.path]} times in one forward pass"
        elif refused is None and not _holds_tensor(value):
            refused = "it holds no tensor"
        sites[touch.path] = Site(touch.path, order, value, refused)
    return sites


def _holds_tensor(value: SiteValue) -> bool:
    return any(_holds_tensor(item) for item in value) if isinstance(value, tuple) else value is not None


def _follow(short: Any, long: Any) -> SiteValue:
    if short is None or long is None:
        return None
    if isinstance(short, list):
        return tuple(_follow(a, b) for a, b in zip(short, long, strict=True))
    (a_shape, dtype), (b_shape, _) = short, long
    if dtype not in ITEM_BYTES:
        raise ValueError(f"its values are of type {dtype}")
    if len(a_shape) != len(b_shape):
        raise ValueError("its shape has another number of axes for another prompt")
    return SiteTensor(tuple(_axis(a, b) for a, b in zip(a_shape, b_shape, strict=True)), dtype)


def _axis(short: int, long: int) -> int | None:
    if short == long:
        return short
    if (short, long) == LENGTHS:
        return None
    raise ValueError("the length of one of its axes depends on the prompt in a way that is not its token count")
