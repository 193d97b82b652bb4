"""Keys and values of the tokens that runs have seen, kept from one step of a generation to the next.

Every layer has one store of slots. A region is a stretch of slots, the same in all layers, with the tokens of one run
one behind the other. Runs whose tokens are the same have one region until they part.
"""

from __future__ import annotations

import weakref
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from ndif_batch.engine.decoding import EMPTY
from ndif_batch.engine.pack import Pack

SMALLEST = 1024
"""Slots of a store that begins."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Region:
    """The slots from ``begin`` on, so many as there is ``room`` for; ``used`` are those whose tokens are settled.

    Of a model that is not packed it has no slots but the model's ``own`` cache.
    """

    begin: int
    room: int
    used: int = 0
    own: Any = None


class Past(NamedTuple):
    """What a run has seen: the first ``tokens`` tokens of a region."""

    region: Region
    tokens: int


@dataclass
class Cache:
    """The stores of a model's layers. A region is free again when nobody holds it any more.

    The slot :data:`~ndif_batch.engine.decoding.EMPTY` is in no region.
    """

    _layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    _free: list[tuple[int, int]] = field(default_factory=list)
    _slots: int = EMPTY + 1

    @property
    def bytes(self) -> int:
        """What the stores take."""
        return sum(one.numel() * one.element_size() for pair in self._layers.values() for one in pair)

    def region(self, room: int) -> Region:
        """A new region."""
        at = next((i for i, (_, size) in enumerate(self._free) if size >= room), None)
        if at is None:
            self._give_back(self._slots, max(room, SMALLEST, self._slots // 2))
            self._slots += max(room, SMALLEST, self._slots // 2)
            return self.region(room)
        begin, size = self._free.pop(at)
        if size > room:
            self._free.insert(at, (begin + room, size - room))
        made = Region(begin, room)
        weakref.finalize(made, self._give_back, begin, room)
        return made

    def extended(self, past: Past, room: int) -> Region:
        """A region that has the tokens of a past and room for more: its own if no other run has gone on from there."""
        region = past.region
        if region.own is not None:
            return Region(0, room, past.tokens, deepcopy(region.own))
        if region.used == past.tokens and region.room >= room:
            return region
        made = self.region(room)
        made.used = past.tokens
        old, new = (slice(one.begin, one.begin + past.tokens) for one in (region, made))
        for layer, (keys, values) in self._layers.items():
            self._layers[layer] = self._grown(keys), self._grown(values)
            for store in self._layers[layer]:
                store[:, new] = store[:, old]
        return made

    def keep(self, layer: nn.Module, pack: Pack, key: torch.Tensor, value: torch.Tensor) -> None:
        """Puts the keys and values ``[1, heads, tokens, width]`` of a pack's runs into their regions."""
        places, slots = pack.kept_at(key.device)
        pair = self._layers.get(id(layer))
        if pair is None:
            pair = (key.new_zeros(key.shape[1], 0, key.shape[3]), value.new_zeros(value.shape[1], 0, value.shape[3]))
        stores = self._grown(pair[0]), self._grown(pair[1])
        for store, given in zip(stores, (key, value), strict=True):
            store.index_copy_(1, slots, given[0] if places is None else given[0].index_select(1, places))
        self._layers[id(layer)] = stores

    def of(self, layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer, ``[heads, slots, width]``."""
        return self._layers[id(layer)]

    def _grown(self, store: torch.Tensor) -> torch.Tensor:
        missing = self._slots - store.shape[1]
        if not missing:
            return store
        return torch.cat([store, store.new_zeros(store.shape[0], missing, store.shape[2])], 1)

    def _give_back(self, begin: int, room: int) -> None:
        """Stretches that touch become one."""
        self._free = sorted([*self._free, (begin, room)])
        merged: list[tuple[int, int]] = []
        for first, size in self._free:
            if merged and sum(merged[-1]) == first:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((first, size))
        self._free = merged
