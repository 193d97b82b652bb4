"""Attention of runs in rows, as models compute it themselves, with the sites inside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ndif_batch.engine.attention import check_keywords, repeated, weights_of
from ndif_batch.engine.inside import Touched, touched_in
from ndif_batch.engine.pack import Numbers

NAME = "ndif_batch_rows"


@dataclass(frozen=True, slots=True)
class _Rowed:
    """What attention in rows is computed from: queries, keys and values ``[rows, heads, tokens, width]``.

    ``mask`` says where a token may attend to, for all rows or each; without one ``causal`` tells it.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    causal: bool
    scale: float
    softcap: float | None
    sinks: torch.Tensor | None

    def visited(self, touched: Touched) -> _Rowed:
        """The same after what is done to queries, keys and values."""
        query, key, value = (touched.visit(name, getattr(self, name)) for name in ("query", "key", "value"))
        return replace(self, query=query, key=key, value=value)

    def of(self, lanes: Numbers) -> tuple[_Rowed, None, None]:
        """See :class:`~ndif_batch.engine.inside.Attended`."""
        return self, None, None

    def weights(self) -> torch.Tensor:
        """See :class:`~ndif_batch.engine.inside.Attended`."""
        weights = self._weights().to(self.query.dtype)
        return weights.transpose(0, 1).flatten(1, 2)[None]

    def heads(self, weights: torch.Tensor) -> torch.Tensor:
        """See :class:`~ndif_batch.engine.inside.Attended`."""
        by_row = weights.reshape(weights.shape[1], self.query.shape[0], -1, weights.shape[3]).transpose(0, 1)
        found = by_row @ repeated(self.value, self.query)
        return found.transpose(1, 2)

    def attended(self) -> torch.Tensor:
        """What comes out, ``[rows, tokens, heads, width]``."""
        if self.softcap is not None or self.sinks is not None:
            found = self._weights().to(self.value.dtype) @ repeated(self.value, self.query)
        else:
            grouped = self.query.shape[1] != self.key.shape[1]
            given = (self.query, self.key, self.value)
            found = scaled_dot_product_attention(
                *given, attn_mask=self.mask, is_causal=self.causal, scale=self.scale, enable_gqa=grouped
            )
        return found.transpose(1, 2)

    def _weights(self) -> torch.Tensor:
        return weights_of(self.query, self.key, self.mask, self.causal, self.scale, self.softcap, self.sinks)


def attention_in_rows(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    is_causal: bool | None = None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """Attention for transformers' ``AttentionInterface``: arguments and result are those of a batch.

    ``TypeError`` for a keyword whose meaning is not known here.
    """
    check_keywords("rowed", keywords)
    mask = None if attention_mask is None else attention_mask[..., : key.shape[2]]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    given = _Rowed(query, key, value, mask, bool(causal and mask is None and query.shape[2] > 1), scale, softcap, s_aux)
    touched = touched_in(module)
    given = given if touched is None else given.visited(touched)
    changed = touched.visit_pattern(given) if touched is not None and touched.touches("pattern") else None
    found = given.attended() if changed is None else changed[1]
    return found if touched is None else touched.visit("heads", found), None


AttentionInterface.register(NAME, attention_in_rows)
AttentionMaskInterface.register(NAME, sdpa_mask)
