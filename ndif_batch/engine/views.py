"""What a graph sees of a site, and how it overwrites it: only ever the tokens of its own run."""

from __future__ import annotations

from typing import Any

import torch

from ndif_batch.engine.bounds import check_index
from ndif_batch.engine.pack import Segment
from ndif_batch.graph.sites import SiteTensor, SiteValue


def view(value: Any, shape: SiteValue, segment: Segment) -> Any:
    """The part of a site's value that belongs to ``segment``, in the shape that the run would see alone."""
    if isinstance(shape, SiteTensor):
        return value.narrow(shape.token_axes[0], segment.first, segment.length) if shape.token_axes else value[...]
    if isinstance(shape, tuple):
        return tuple(view(item, part, segment) for item, part in zip(value, shape, strict=True))
    return None


class SiteBuffer:
    """The value of one site in one pass. It is copied before the first write, since others may hold the same tensor."""

    def __init__(self, value: Any, shape: SiteValue) -> None:
        self._value = value
        self._shape = shape
        self._own: set[int] = set()
        self.written = False

    @property
    def value(self) -> Any:
        """The whole value, with what was written."""
        return self._value

    def view(self, segment: Segment) -> Any:
        """What the run of ``segment`` reads; a copy once something was written, since later writes are in place."""
        seen = view(self._value, self._shape, segment)
        return _copied(seen) if self.written else seen

    def write(self, segment: Segment, index: tuple[Any, ...], new: Any) -> None:
        """Overwrites ``index`` of the run's view with ``new``, broadcast as in torch."""
        self._value = self._written(self._value, self._shape, segment, index, new)
        self.written = True

    def _written(self, value: Any, shape: SiteValue, segment: Segment, index: tuple[Any, ...], new: Any) -> Any:
        if isinstance(shape, tuple):
            return self._written_tuple(value, shape, segment, index, new)
        if not isinstance(shape, SiteTensor):
            raise TypeError("this part of the site is no tensor and cannot be written")
        if id(value) not in self._own:
            value = value.clone()
            self._own.add(id(value))
        own = view(value, shape, segment)
        if own.device.type != "cpu":
            check_index(tuple(own.shape), index)
        if isinstance(new, torch.Tensor):
            new = new.to(own.device)
        own[index if index else ...] = new
        return value

    def _written_tuple(
        self, value: Any, shape: tuple[SiteValue, ...], segment: Segment, index: tuple[Any, ...], new: Any
    ) -> Any:
        if index:
            which = index[0]
            if not isinstance(which, int) or not -len(shape) <= which < len(shape):
                raise IndexError(f"the site holds {len(shape)} values; {which!r} is none of them")
            changes = {which % len(shape): (index[1:], new)}
        else:
            if not isinstance(new, tuple) or len(new) != len(shape):
                raise TypeError(f"the site holds {len(shape)} values; write one of them or a tuple of {len(shape)}")
            changes = {i: ((), item) for i, item in enumerate(new) if shape[i] is not None}
        items = list(value)
        for i, (rest, item) in changes.items():
            items[i] = self._written(items[i], shape[i], segment, rest, item)
        return type(value)(items)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return tuple(_copied(item) for item in value) if isinstance(value, tuple) else value
