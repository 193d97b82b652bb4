"""Attention over a pack: each run attends to itself alone, in blocks of equal length without padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from ndif_batch.engine import varlen
from ndif_batch.engine.cache import Cache
from ndif_batch.engine.inside import SeenSeats, Touched, lenders, touched_in
from ndif_batch.engine.pack import Group, Numbers, Pack

NAME = "ndif_batch_packed"

WITHOUT_MEANING = frozenset(
    {
        "position_ids",
        "position_embeddings",
        "use_cache",
        "cache_position",
        "past_key_values",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "return_dict",
        "deterministic",
        "is_causal",
        "sliding_window",
    }
)
"""Keywords that say nothing which the mask pattern does not say already."""

Watch: TypeAlias = Callable[[Pack, torch.Tensor], None]

_current: ContextVar[tuple[Callable[[], Pack], Watch | None, Cache | None] | None] = ContextVar("pack", default=None)


@contextmanager
def attending(pack: Callable[[], Pack], watch: Watch | None = None, cache: Cache | None = None) -> Iterator[None]:
    """Attention inside the block is over what ``pack`` gives at that moment.

    ``watch`` sees the values ``[1, heads, tokens, width]`` of each layer in which branches borrow from their trunks.
    ``cache`` has what lanes with a past attend to, and takes what is kept.
    """
    token = _current.set((pack, watch, cache))
    try:
        yield
    finally:
        _current.reset(token)


def current_pack() -> Pack | None:
    """The pack that attention is over at this moment, if it is ours."""
    current = _current.get()
    return None if current is None else current[0]()


class Pattern:
    """Which earlier or later tokens of its own run a token may attend to, as transformers' mask function says."""

    def __init__(self, function: Callable[..., torch.Tensor], device: torch.device) -> None:
        self._function = function
        self._device = device
        self._masks: dict[int, tuple[torch.Tensor | None, bool]] = {}
        self._last: dict[tuple[int, int], torch.Tensor | None] = {}
        self._windows: dict[int, tuple[int, int] | None] = {}

    def to(self, *args: Any, **kwargs: Any) -> Pattern:
        """The same pattern: a model that is spread over devices moves what it hands from block to block."""
        return self

    def mask(self, length: int) -> tuple[torch.Tensor | None, bool]:
        """For runs of ``length`` tokens: a mask ``[length, length]``, ``None`` if all may; and whether it is causal."""
        if length not in self._masks:
            self._masks[length] = self._measure(length)
        return self._masks[length]

    def last(self, queries: int, length: int) -> tuple[torch.Tensor | None, bool]:
        """The same for the last ``queries`` tokens of such runs: a mask ``[queries, length]``."""
        if queries == 1 < length:
            return self._last_row(length), False
        mask, causal = self.mask(length)
        if queries == length or (mask is None and not causal) or (causal and queries == 1):
            return mask, causal and queries == length
        if (queries, length) not in self._last:
            whole = torch.ones(length, length, dtype=torch.bool, device=self._device).tril() if mask is None else mask
            self._last[queries, length] = whole[length - queries :]
        return self._last[queries, length], False

    def window(self, length: int) -> tuple[int, int] | None:
        """How many tokens to the left and to the right of its own place a token of such runs may attend to.

        -1 is any number; ``None`` if the pattern is of another kind.
        """
        if length not in self._windows:
            mask, causal = self.mask(length)
            if mask is None:
                self._windows[length] = (-1, 0) if causal else (-1, -1)
            else:
                left = int(mask[-1].sum()) - 1
                band = torch.ones_like(mask).tril() & torch.ones_like(mask).triu(-left)
                self._windows[length] = (left, 0) if torch.equal(mask, band) else None
        return self._windows[length]

    def _last_row(self, length: int) -> torch.Tensor | None:
        if (1, length) not in self._last:
            allowed = self._looked_at(length, 1)
            self._last[1, length] = None if bool(allowed.all()) else allowed.to(self._device)
        return self._last[1, length]

    def _measure(self, length: int) -> tuple[torch.Tensor | None, bool]:
        allowed = self._looked_at(length, length)
        if bool(allowed.all()):
            return None, False
        if torch.equal(allowed, torch.ones_like(allowed).tril()):
            return None, True
        return allowed.to(self._device), False

    def _looked_at(self, length: int, queries: int) -> torch.Tensor:
        """Looked at in main memory, so that a pass that begins does not wait for the end of the last."""
        try:
            return self._allowed(length, queries, torch.device("cpu"))
        except RuntimeError:  # the function has tensors of its own, on the model's device
            return self._allowed(length, queries, self._device).cpu()

    def _allowed(self, length: int, queries: int, device: torch.device) -> torch.Tensor:
        place = torch.arange(length, device=device)
        zero = torch.zeros((), dtype=torch.long, device=device)
        last = place[length - queries :]
        return self._function(zero, zero, last[:, None], place[None, :]).expand(queries, length)


def _pattern(*, mask_function: Callable[..., torch.Tensor], device: torch.device, **_: Any) -> Pattern:
    return Pattern(mask_function, torch.device(device))


def check_keywords(kind: str, keywords: Mapping[str, Any]) -> None:
    """``TypeError`` for a keyword whose meaning is not known here."""
    unknown = [name for name, given in keywords.items() if given is not None and name not in WITHOUT_MEANING]
    if unknown:
        raise TypeError(f"{kind} attention does not know {unknown}")


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Pattern | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Attention for transformers' ``AttentionInterface``.

    ``query`` is ``[1, heads, tokens, width]``, ``key`` and ``value`` have their own number of heads; the result is
    ``[1, tokens, heads, width]``. ``TypeError`` for a keyword whose meaning is not known here.
    """
    check_keywords("packed", keywords)
    if not isinstance(attention_mask, Pattern):
        raise TypeError("packed attention needs a mask pattern from transformers")
    current = _current.get()
    if current is None:
        raise RuntimeError("an attention module cannot be called by itself: it needs the tokens of a run")
    pack, watch, cache = current[0](), current[1], current[2]
    held = None
    if cache is not None and pack.is_kept:
        cache.keep(module, pack, key, value)
        held = cache.of(module)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    given = _Packed(pack, query, key, value, held, attention_mask, scale, softcap, s_aux)
    touched = touched_in(module)
    given = given if touched is None else given.visited(touched)
    if watch is not None and pack.borrows:
        watch(pack, given.value.detach())
        if given.key is not key:
            watch(pack, given.key.detach())
    changed = touched.visit_pattern(given) if touched is not None and touched.touches("pattern") else None
    found = given.attended()
    if changed is not None:
        places, own = changed
        found = own if places is None else found.index_copy(1, places, own)
    return found if touched is None else touched.visit("heads", found), None


@dataclass(frozen=True, slots=True)
class _Packed:
    """What attention over a pack is computed from.

    ``held`` are the keys and values of a cache, ``[heads, slots, width]``, to which lanes with a past attend.
    """

    pack: Pack
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    held: tuple[torch.Tensor, torch.Tensor] | None
    pattern: Pattern
    scale: float
    softcap: float | None
    sinks: torch.Tensor | None

    def visited(self, touched: Touched) -> _Packed:
        """The same after what is done to queries, keys and values; what a cache keeps is not changed."""
        query = touched.visit("query", self.query)
        if self.held is None or self.pack.fresh == self.pack.tokens:
            key, value = (touched.visit(name, getattr(self, name)) for name in ("key", "value"))
            return replace(self, query=query, key=key, value=value)
        seats = SeenSeats(self.pack)
        (key, keys), (value, values) = (
            self._seen(touched, name, own, store, seats)
            for name, own, store in zip(("key", "value"), (self.key, self.value), self.held, strict=True)
        )
        return replace(self, query=query, key=key, value=value, held=(keys, values))

    def _seen(
        self, touched: Touched, name: str, own: torch.Tensor, store: torch.Tensor, seats: SeenSeats
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not touched.touches(name):
            return own, store
        fresh, slots = self.pack.fresh, self.pack.slots(store.device)
        whole = torch.cat([own[:, :, :fresh], store.index_select(1, slots)[None]], 2)
        written = touched.visit(name, whole, seats)
        if written is whole:
            return own, store
        own = torch.cat([written[:, :, :fresh], own[:, :, fresh:]], 2)
        return own, store.index_copy(1, slots, written[0, :, fresh:])

    def attended(self) -> torch.Tensor:
        """What comes out, ``[1, tokens, heads, width]``."""
        differentiated = torch.is_grad_enabled() and any(
            one.requires_grad for one in (self.query, self.key, self.value)
        )
        plain = self.softcap is None and self.sinks is None and not differentiated
        if plain and varlen.is_faster(self.pack, self.query, self.key, self.value):
            window = self.pattern.window(max(group.length for group in self.pack.groups))
            if window is not None:
                return varlen.attend(self.pack, self.query, self.key, self.value, self.held, self.scale, window)
        return self._joined([self._attended(*rows) for rows in self._groups()])

    def of(self, lanes: Numbers) -> tuple[_Packed, Pack | None, torch.Tensor | None]:
        """See :class:`~ndif_batch.engine.inside.Attended`."""
        there = lenders(self.pack, lanes)
        if there.size == self.pack.ordered.size:
            return self, None, None
        pack, index = self.pack.with_lanes(there, self.query.device)
        query, key, value = (one.index_select(2, index) for one in (self.query, self.key, self.value))
        return replace(self, pack=pack, query=query, key=key, value=value), pack, index

    def weights(self) -> torch.Tensor:
        """See :class:`~ndif_batch.engine.inside.Attended`."""
        longest = max(group.length for group in self.pack.groups)
        parts = []
        for group, query, key, _ in self._groups():
            weights = self._weights(group, query, key).to(query.dtype)
            heads = weights.transpose(0, 1).reshape(weights.shape[1], group.rows * group.queries, group.length)
            parts.append(pad(heads, (0, longest - group.length)))
        return torch.cat(parts, dim=1)[None]

    def heads(self, weights: torch.Tensor) -> torch.Tensor:
        """See :class:`~ndif_batch.engine.inside.Attended`."""
        return self._joined(
            [
                _rows(weights, group.first, group.rows, group.queries)[..., : group.length] @ repeated(value, query)
                for group, query, _, value in self._groups()
            ]
        )

    def _groups(self) -> Iterator[tuple[Group, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Rows of queries, keys and values, ``[rows, heads, tokens, width]``, of each group."""
        pack, query, key, value = self.pack, self.query, self.key, self.value
        lent = pack.keys(key.device) if pack.borrows else None
        lent_key, lent_value = (None, None) if lent is None else (key[:, :, lent], value[:, :, lent])
        cached_key, cached_value = (None, None)
        if self.held is not None and pack.fresh < pack.tokens:
            slots = pack.slots(key.device)
            cached_key, cached_value = (store.index_select(1, slots)[None] for store in self.held)
        for group in pack.groups:
            q = _rows(query, group.first, group.rows, group.queries)
            if group.keys is None:
                k, v = (_rows(tensor, group.first, group.rows, group.length) for tensor in (key, value))
            elif group.cached:
                k, v = (_rows(tensor, group.keys, group.rows, group.length) for tensor in (cached_key, cached_value))
            else:
                k, v = (_rows(tensor, group.keys, group.rows, group.length) for tensor in (lent_key, lent_value))
            yield group, q, k, v

    def _attended(self, group: Group, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if self.softcap is not None or self.sinks is not None:
            return self._weights(group, q, k).to(v.dtype) @ repeated(v, q)
        mask, causal = self.pattern.last(group.queries, group.length)
        mask = None if mask is None else mask.to(q.device)
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=self.scale, enable_gqa=q.shape[1] != k.shape[1]
        )

    def _weights(self, group: Group, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        mask, causal = self.pattern.last(group.queries, group.length)
        mask = None if mask is None else mask.to(query.device)
        return weights_of(query, key, mask, causal, self.scale, self.softcap, self.sinks)

    def _joined(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """What the groups give, ``[rows, heads, queries, width]`` each, along the tokens."""
        laid = [part.transpose(1, 2).reshape(1, -1, part.shape[1], part.shape[3]) for part in parts]
        return laid[0] if len(laid) == 1 else torch.cat(laid, dim=1)


def _rows(tensor: Any, first: int, rows: int, length: int) -> torch.Tensor:
    block: torch.Tensor = tensor[0, :, first : first + rows * length]
    return block.reshape(block.shape[0], rows, length, block.shape[2]).transpose(0, 1)


def repeated(key: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Keys or values with a head for each head of the queries."""
    return key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)


def weights_of(
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention weights ``[rows, heads, queries, keys]`` in float32.

    Soft caps are as in Gemma 2, a sink logit for each head as in gpt-oss; neither is in SDPA.
    """
    logits = query @ repeated(key, query).transpose(2, 3) * scale
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    if sinks is None:
        return torch.softmax(logits, dim=-1, dtype=torch.float32)
    column = sinks.reshape(1, -1, 1, 1).expand(logits.shape[0], -1, logits.shape[2], 1)
    return torch.softmax(torch.cat([logits, column], dim=-1).float(), dim=-1)[..., :-1]


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _pattern)
