"""What tasks take from a site and put into it while a pass is there: only ever the tokens of their own runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ndif_batch.engine.bounds import check_index
from ndif_batch.engine.functions import getitem
from ndif_batch.engine.indices import WHOLE, one_part_an_axis, positions
from ndif_batch.engine.inside import Seats
from ndif_batch.engine.pack import Numbers
from ndif_batch.engine.values import Each, Rows, varies
from ndif_batch.engine.vectorised import OneByOneError, is_plain, taken, uploaded
from ndif_batch.graph.dtypes import FLOATS
from ndif_batch.graph.sites import SiteTensor, SiteValue


class SiteAccess:
    """The value of one site in one pass. It is copied before the first write, since others may hold the same tensor.

    Methods for many tasks take one lane for each; what cannot be done for all at once raises ``OneByOneError`` (or
    what torch raises) before anything is changed.
    """

    def __init__(self, value: Any, shape: SiteValue, pack: Seats) -> None:
        self._value = value
        self._shape = shape
        self._pack = pack
        self._own: set[int] = set()
        self._noted: Noted | None = None
        self.written = False

    @property
    def value(self) -> Any:
        """The whole value, with what was written."""
        return self._value

    def take(self, lanes: Numbers, index: tuple[Any, ...]) -> Any:
        """For each task what ``index`` takes of its run's view; the value itself if it is the same for all."""
        return _take(self._pack, self._value, self._shape, lanes, index)

    def take_one(self, lane: int, index: tuple[Any, ...]) -> Any:
        """What ``index`` takes of the view of one lane: a copy, in the shape that the run would see alone."""
        return _take_one(self._pack, self._value, self._shape, lane, index)

    def put(self, lanes: Numbers, index: tuple[Any, ...], new: Any) -> None:
        """Overwrites ``index`` of each task's view."""
        whole, rest = _item(self._shape, index)
        if not isinstance(whole, SiteTensor) or len(whole.token_axes) != 1:
            raise OneByOneError
        parts = _parts(rest, whole)
        axis = whole.token_axes[0]
        if any(isinstance(part, Rows) for i, part in enumerate(parts) if i != axis):
            raise OneByOneError
        places = _places(self._pack, lanes, parts[axis])
        seen = _seen(self._pack, whole, lanes)
        shape = [_size(part, size) for part, size in zip(parts, whole.at(places.shape[-1], seen), strict=True)]
        if places.ndim == 2:
            shape[axis] = places.shape[1]
        new = _broadcast(new, len(lanes), [size for size in shape if size is not None])
        if places.ndim == 2 and isinstance(new, torch.Tensor):
            new = new.movedim(1 + sum(size is not None for size in shape[:axis]), 1)
        tensor = _cut(self._owned(index), whole, seen)
        if isinstance(new, torch.Tensor):
            new = new.to(tensor)
        beside = tuple(part for i, part in enumerate(parts) if i != axis)
        tokens = tensor.movedim(axis, 0)
        if len(lanes) == 1 and _are_side_by_side(places):
            own = new[0] if isinstance(new, torch.Tensor) and places.ndim == 2 else new
            tokens.narrow(0, int(places.flat[0]), places.size)[(slice(None), *beside)] = own
        else:
            tokens[(uploaded(places, tensor.device), *beside)] = new

    def put_one(self, lane: int, index: tuple[Any, ...], new: Any) -> None:
        """Overwrites ``index`` of the view of one lane with ``new``, broadcast as in torch."""
        whole, rest = _item(self._shape, index)
        if isinstance(whole, tuple):
            self._put_tuple(lane, whole, index, new)
            return
        if not isinstance(whole, SiteTensor):
            raise TypeError("this part of the site is no tensor and cannot be written")
        places, rest = _window(self._pack, whole, lane, rest)
        tensor = _cut(self._owned(index), whole, _seen_by_one(self._pack, whole, lane))
        there = _in_place(tensor, whole, places) if all(is_plain(part) for part in rest) else None
        view = _view(tensor, whole, places) if there is None else there
        if tensor.device.type != "cpu":
            check_index(tuple(view.shape), rest)
        view[rest if rest else ...] = new.to(tensor.device) if isinstance(new, torch.Tensor) else new
        if there is None and whole.token_axes:
            tensor.index_copy_(whole.token_axes[0], uploaded(places, tensor.device), view)
        elif there is None:
            tensor.copy_(view)

    def note(self) -> Noted:
        """What the site holds now, for gradients by it; what comes later takes it from here and nowhere else.

        A module that changes its arguments, and later writes, change a copy.
        """
        if self._noted is None:
            held = _floats(self._value, self._shape, lambda tensor: tensor.clone().requires_grad_())
            self._value = _floats(held, self._shape, torch.clone)
            self._own = {id(tensor) for tensor in _tensors(self._value, self._shape)}
            self._noted = Noted(held, self._shape, self._pack)
            self.written = True
        return self._noted

    def _put_tuple(self, lane: int, whole: tuple[SiteValue, ...], index: tuple[Any, ...], new: Any) -> None:
        if not isinstance(new, tuple) or len(new) != len(whole):
            count = len(whole)
            raise TypeError(f"the site holds {count} values; write one of them or a tuple of {count}")
        for i, part in enumerate(whole):
            if part is not None:
                self.put_one(lane, (*index, i), new[i])

    def _owned(self, index: tuple[Any, ...]) -> torch.Tensor:
        """The tensor to which ``index`` leads, from now on the pass's own copy."""
        self.written = True
        self._noted = None
        self._value, tensor = self._copied(self._value, self._shape, index)
        return tensor

    def _copied(self, value: Any, shape: SiteValue, index: tuple[Any, ...]) -> tuple[Any, torch.Tensor]:
        if isinstance(shape, tuple):
            items = list(value)
            at = index[0] % len(shape)
            items[at], tensor = self._copied(items[at], shape[at], index[1:])
            return type(value)(items), tensor
        if id(value) not in self._own:
            value = value.clone()
            self._own.add(id(value))
        return value, value


@dataclass(frozen=True, slots=True)
class Noted:
    """What a site held at one moment of a pass, all runs of it: gradients are taken by these tensors."""

    value: Any
    shape: SiteValue
    pack: Seats

    @property
    def tensors(self) -> Iterator[torch.Tensor]:
        """Each tensor in it that can have a gradient."""
        return _tensors(self.value, self.shape)

    def gradient(self, found: Mapping[int, torch.Tensor]) -> SiteAccess:
        """The gradients by what was held; ``found`` are those that are not zero, by the identity of a tensor."""

        def of(tensor: torch.Tensor) -> torch.Tensor:
            gradient = found.get(id(tensor))
            return torch.zeros_like(tensor) if gradient is None else gradient

        return SiteAccess(_floats(self.value, self.shape, of), _differentiable(self.shape), self.pack)


def _is_float(shape: SiteValue) -> bool:
    return isinstance(shape, SiteTensor) and shape.dtype in FLOATS


def _differentiable(shape: SiteValue) -> SiteValue:
    if isinstance(shape, tuple):
        return tuple(_differentiable(part) for part in shape)
    return shape if _is_float(shape) else None


def _floats(value: Any, shape: SiteValue, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``value`` with every tensor in it that can have a gradient changed."""
    if isinstance(shape, tuple):
        return type(value)(_floats(item, part, change) for item, part in zip(value, shape, strict=True))
    return change(value) if _is_float(shape) else value


def _tensors(value: Any, shape: SiteValue) -> Iterator[torch.Tensor]:
    if isinstance(shape, tuple):
        for item, part in zip(value, shape, strict=True):
            yield from _tensors(item, part)
    elif _is_float(shape):
        yield value


def _item(shape: SiteValue, index: tuple[Any, ...]) -> tuple[SiteValue, tuple[Any, ...]]:
    """The item of a tuple that an index leads to, and the rest of the index."""
    while isinstance(shape, tuple) and index:
        which = index[0]
        if not isinstance(which, int) or not -len(shape) <= which < len(shape):
            raise IndexError(f"the site holds {len(shape)} values; {which!r} is none of them")
        shape, index = shape[which], index[1:]
    return shape, index


def _take(pack: Seats, value: Any, shape: SiteValue, lanes: Numbers, index: tuple[Any, ...]) -> Any:
    if bool((lanes == lanes[0]).all()) and not varies(index):
        return _take_one(pack, value, shape, int(lanes[0]), index)
    if isinstance(shape, tuple):
        if index:
            at = index[0] % len(shape)
            return _take(pack, value[at], shape[at], lanes, index[1:])
        return tuple(_take(pack, item, part, lanes, ()) for item, part in zip(value, shape, strict=True))
    if not isinstance(shape, SiteTensor):
        return None
    if len(shape.token_axes) != 1:
        raise OneByOneError
    parts = _parts(index, shape)
    axis = shape.token_axes[0]
    places = _places(pack, lanes, parts[axis])
    value = _cut(value, shape, _seen(pack, shape, lanes))
    found = value.movedim(axis, 0)[uploaded(places, value.device)]
    if places.ndim == 1:
        return Each(taken(found, (*parts[:axis], *parts[axis + 1 :])))
    return Each(taken(found.movedim(1, 1 + axis), (*parts[:axis], slice(None), *parts[axis + 1 :])))


def _take_one(pack: Seats, value: Any, shape: SiteValue, lane: int, index: tuple[Any, ...]) -> Any:
    if isinstance(shape, tuple):
        if index:
            at = index[0] % len(shape)
            return _take_one(pack, value[at], shape[at], lane, index[1:])
        return tuple(_take_one(pack, item, part, lane, ()) for item, part in zip(value, shape, strict=True))
    if not isinstance(shape, SiteTensor):
        return None
    places, index = _window(pack, shape, lane, index)
    view = _view(_cut(value, shape, _seen_by_one(pack, shape, lane)), shape, places)
    return getitem(view, index) if index else view


def _seen(pack: Seats, shape: SiteTensor, lanes: Numbers) -> int | None:
    """How many tokens each of some runs has seen, at a site that has an axis for these beside that of its own.

    ``OneByOneError`` if it is not the same number for all.
    """
    if shape.seen is None or shape.seen in shape.token_axes:
        return None
    seen = pack.seen[lanes]
    if bool((seen != seen[0]).any()):
        raise OneByOneError
    return int(seen[0])


def _seen_by_one(pack: Seats, shape: SiteTensor, lane: int) -> int | None:
    return _seen(pack, shape, np.array([lane]))


def _cut(value: torch.Tensor, shape: SiteTensor, seen: int | None) -> torch.Tensor:
    """The value up to the last token that was seen: others have seen more."""
    return value if seen is None or shape.seen is None else value.narrow(shape.seen, 0, seen)


def _view(value: torch.Tensor, shape: SiteTensor, places: Numbers) -> torch.Tensor:
    """A copy of the tokens at ``places``."""
    there = _in_place(value, shape, places)
    if there is not None:
        return there.clone()
    return value.index_select(shape.token_axes[0], uploaded(places, value.device))


def _in_place(value: torch.Tensor, shape: SiteTensor, places: Numbers) -> torch.Tensor | None:
    """The tokens at ``places`` in the memory of all if they lie side by side there."""
    if not shape.token_axes:
        return value
    if not _are_side_by_side(places):
        return None
    return value.narrow(shape.token_axes[0], int(places[0]), places.size)


def _are_side_by_side(places: Numbers) -> bool:
    return places.size > 0 and not bool((np.diff(places.ravel()) != 1).any())


def _window(pack: Seats, shape: SiteTensor, lane: int, index: tuple[Any, ...]) -> tuple[Numbers, tuple[Any, ...]]:
    """Places of the positions that ``index`` touches, and the index for a view of these alone."""
    length = int(pack.viewed[lane])
    parts = one_part_an_axis(index, len(shape.shape)) if len(shape.token_axes) == 1 else None
    along: Any = parts[shape.token_axes[0]] if parts else WHOLE
    if parts is None or along is WHOLE or not is_plain(along):
        return _row(pack, lane, np.arange(length)), index
    touched = np.array(positions(along, length), np.int64)
    axis = shape.token_axes[0]
    own: Any = slice(None) if isinstance(along, slice) else 0
    new = (*parts[:axis], own, *parts[axis + 1 :])
    return _row(pack, lane, touched), tuple(slice(None) if part is WHOLE else part for part in new)


def _row(pack: Seats, lane: int, touched: Numbers) -> Numbers:
    return pack.places(np.full(touched.size, lane), touched)


def _parts(index: tuple[Any, ...], shape: SiteTensor) -> tuple[Any, ...]:
    parts = one_part_an_axis(index, len(shape.shape))
    parts = parts and tuple(slice(None) if part is WHOLE else part for part in parts)
    if parts is None or not all(is_plain(part) for part in parts):
        raise OneByOneError
    return parts


def _places(pack: Seats, lanes: Numbers, part: int | slice | Rows) -> Numbers:
    """Places of the positions of each task: ``[tasks]`` for a position, ``[tasks, positions]`` for a slice."""
    lengths = pack.viewed[lanes]
    if isinstance(part, slice):
        ranges = [positions(part, length) for length in lengths.tolist()]
        if len({len(one) for one in ranges}) > 1:
            raise OneByOneError
        return pack.places(np.repeat(lanes[:, None], len(ranges[0]), 1), np.array(ranges, np.int64))
    at = np.array(part.values if isinstance(part, Rows) else [part] * len(lanes), np.int64)
    if bool(((at < -lengths) | (at >= lengths)).any()):
        raise OneByOneError
    return pack.places(lanes, at % lengths)


def _size(part: Any, size: int) -> int | None:
    return len(range(size)[part]) if isinstance(part, slice) else None


def _broadcast(new: Any, tasks: int, shape: Sequence[int]) -> Any:
    """A new value for each task's part of ``shape``; ``OneByOneError`` if it does not fit the part."""
    if isinstance(new, Rows | tuple):
        raise OneByOneError
    if isinstance(new, Each):
        own, new = new.stacked.shape[1:], new.stacked
    elif isinstance(new, torch.Tensor):
        own, new = new.shape, new[None]
    else:
        return new
    extra = len(own) - len(shape)
    if any(size != 1 for size in own[: max(extra, 0)]):
        raise OneByOneError
    own = own[max(extra, 0) :]
    new = new.reshape(new.shape[0], *[1] * max(-extra, 0), *own)
    if any(size not in (1, wanted) for size, wanted in zip(reversed(own), reversed(shape), strict=False)):
        raise OneByOneError
    return new.expand(tasks, *shape)
