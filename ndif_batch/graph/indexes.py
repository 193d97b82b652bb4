"""What an index selects: the shape of ``value[index]``, with torch's rules for lists, tensors and masks."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.nodes import SliceArg
from ndif_batch.graph.shapes import Shape, broadcast
from ndif_batch.graph.signatures import describe


class OutsideError(ShapeError):
    """A position lies outside an axis of the value that is indexed."""

    def __init__(self, position: int, axis: int, length: int) -> None:
        super().__init__(f"index {position} is outside axis {axis} of length {length}")
        self.position = position
        self.axis = axis
        self.length = length


@dataclass(frozen=True, slots=True)
class Selection:
    """The shape of ``value[index]``.

    ``origin`` has, for each axis of the shape, the axis of the value that it runs along with all its positions or a
    slice of them, else ``None``. ``masked`` is the axis as long as a mask has true elements, which only the run
    itself knows; its length in ``shape`` is 1.
    """

    shape: Shape
    origin: tuple[int | None, ...]
    masked: int | None = None


def select(shape: Shape, index: Any) -> Selection:
    """What ``index`` selects of a value of ``shape``; ``ShapeError`` where torch would raise.

    Ints remove their axis first; then lists and tensors are broadcast together, and the axes of the result stand
    where they stood if they were neighbours, else in front.
    """
    items = index if isinstance(index, tuple) else (index,)
    return _Selecting(shape, items).selection()


class _Selecting:
    def __init__(self, shape: Shape, items: tuple[Any, ...]) -> None:
        self.shape = shape
        self.items = items
        self.axis = 0
        self.sizes: list[int] = []
        self.origin: list[int | None] = []
        self.places: list[int] = []
        self.advanced: list[Shape] = []
        self.masks = 0

    def selection(self) -> Selection:
        taken = sum(_taken(item) for item in self.items)
        if taken > len(self.shape):
            raise ShapeError(f"{taken} indices are too many for the {len(self.shape)} dimensions of {list(self.shape)}")
        if sum(item is ... for item in self.items) > 1:
            raise ShapeError("an index can hold only one ...")
        for item in self.items:
            if item is ...:
                self._keep(len(self.shape) - taken)
            else:
                self._take(item)
        self._keep(len(self.shape) - self.axis)
        if not self.places:
            return Selection(tuple(self.sizes), tuple(self.origin))
        return self._joined()

    def _keep(self, count: int) -> None:
        self.sizes += self.shape[self.axis : self.axis + count]
        self.origin += range(self.axis, self.axis + count)
        self.axis += count

    def _take(self, item: Any) -> None:
        if isinstance(item, SliceArg):
            self.sizes.append(_slice_length(item, self.shape[self.axis]))
            self.origin.append(self.axis)
            self.axis += 1
        elif type(item) is int:
            self._check(item)
            self.axis += 1
        elif item is None:
            self.sizes.append(1)
            self.origin.append(None)
        elif isinstance(item, tuple):
            self._advance(self._list_shape(item), 1)
        elif isinstance(item, AbstractTensor):
            self._take_tensor(item)
        else:
            raise ShapeError(f"{describe(item)} is no index")

    def _take_tensor(self, item: AbstractTensor) -> None:
        if item.dtype == "bool" and item.shape:
            covered = self.shape[self.axis : self.axis + len(item.shape)]
            if covered != item.shape:
                raise ShapeError(f"a mask of shape {list(item.shape)} does not fit axes of lengths {list(covered)}")
            self.masks += 1
            self._advance((1,), len(item.shape))
        elif item.dtype not in ("int64", "int32"):
            raise ShapeError(f"an index must be int64, int32 or a bool mask with dimensions, not {describe(item)}")
        elif item.size and not self.shape[self.axis]:
            raise ShapeError(f"axis {self.axis} has no positions")
        elif item.shape:
            self._advance(item.shape, 1)
        else:
            self.axis += 1

    def _advance(self, shape: Shape, covered: int) -> None:
        self.places.append(len(self.sizes))
        self.advanced.append(shape)
        self.sizes.append(0)
        self.origin.append(None)
        self.axis += covered

    def _list_shape(self, items: tuple[Any, ...]) -> Shape:
        if items and all(isinstance(item, bool) for item in items):
            if len(items) != self.shape[self.axis]:
                raise ShapeError(f"a mask of {len(items)} does not fit axis {self.axis} of {self.shape[self.axis]}")
            return (sum(items),)
        if all(isinstance(item, tuple) for item in items) and items:
            inner = {self._list_shape(item) for item in items if not any(isinstance(i, bool) for i in item)}
            if len(inner) != 1:
                raise ShapeError(f"lists in the index differ in length: {describe(items)}")
            return (len(items), *inner.pop())
        for item in items:
            if type(item) is not int:
                raise ShapeError(f"a list in an index holds ints known before the run, not {describe(item)}")
            self._check(item)
        return (len(items),)

    def _check(self, position: int) -> None:
        length = self.shape[self.axis]
        if not -length <= position < length:
            raise OutsideError(position, self.axis, length)

    def _joined(self) -> Selection:
        joined = broadcast(*self.advanced)
        if self.masks and len(self.advanced) > 1:
            raise ShapeError("a mask cannot be combined with other lists or tensors in one index")
        first, last = self.places[0], self.places[-1]
        at = first if last - first + 1 == len(self.places) else 0
        sizes = [size for i, size in enumerate(self.sizes) if i not in self.places]
        origin = [axis for i, axis in enumerate(self.origin) if i not in self.places]
        sizes[at:at] = joined
        origin[at:at] = [None] * len(joined)
        return Selection(tuple(sizes), tuple(origin), at if self.masks else None)


def _taken(item: Any) -> int:
    if item is None or isinstance(item, EllipsisType):
        return 0
    return len(item.shape) if isinstance(item, AbstractTensor) and item.dtype == "bool" else 1


def _slice_length(item: SliceArg, length: int) -> int:
    bounds = slice(_bound(item.start), _bound(item.stop), _bound(item.step))
    if bounds.step is not None and bounds.step < 1:
        raise ShapeError(f"the step of a slice must be positive, not {bounds.step}")
    return len(range(length)[bounds])


def _bound(part: Any) -> int | None:
    if part is None or type(part) is int:
        return part
    raise ShapeError(f"the bounds of a slice must be ints known before the run, not {describe(part)}")
