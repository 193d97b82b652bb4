"""Values of many tasks at once: one for all, one tensor with a row for each, or a value for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import copysign
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Each:
    """A tensor for every task, one behind the other: ``[tasks, …]``."""

    stacked: torch.Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """A value for every task, of shapes or kinds that cannot be stacked."""

    values: tuple[Any, ...]


def leaves(value: Any) -> Iterator[Any]:
    """Everything inside a value that is not a tuple or a slice."""
    if isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, slice):
        yield from (value.start, value.stop, value.step)
    else:
        yield value


def mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """``value`` with ``leaf`` applied to everything inside it that is not a tuple or a slice."""
    if isinstance(value, tuple):
        return tuple(mapped(item, leaf) for item in value)
    if isinstance(value, slice):
        return slice(leaf(value.start), leaf(value.stop), leaf(value.step))
    return leaf(value)


def varies(value: Any) -> bool:
    """Whether tasks have values of their own in it."""
    return any(isinstance(leaf, Each | Rows) for leaf in leaves(value))


def of_task(value: Any, place: int) -> Any:
    """What the task at ``place`` has of a value."""

    def leaf(one: Any) -> Any:
        if isinstance(one, Each):
            return one.stacked[place]
        return one.values[place] if isinstance(one, Rows) else one

    return mapped(value, leaf)


def of_each(value: Any, tasks: int) -> Sequence[Any]:
    """What each of so many tasks has of a value."""
    if isinstance(value, Each):
        return value.stacked.unbind()
    return [of_task(value, place) for place in range(tasks)]


def of_tasks(value: Any, places: Sequence[int]) -> Any:
    """The value of some of the tasks."""

    def leaf(one: Any) -> Any:
        if isinstance(one, Each):
            return Each(one.stacked[list(places)])
        return Rows(tuple(one.values[i] for i in places)) if isinstance(one, Rows) else one

    return mapped(value, leaf)


def joined(values: Sequence[Any]) -> Any:
    """The tasks' own values as one; of a single task, its value."""
    first = values[0]
    if len(values) == 1:
        return first
    if isinstance(first, torch.Tensor):
        kind = (first.shape, first.dtype, first.device)
        if all(isinstance(v, torch.Tensor) and (v.shape, v.dtype, v.device) == kind for v in values):
            return Each(torch.stack(list(values)))
    elif isinstance(first, tuple):
        if all(isinstance(v, tuple) and len(v) == len(first) for v in values):
            return tuple(joined(column) for column in zip(*values, strict=True))
    elif all(_is_same(v, first) for v in values):
        return first
    return Rows(tuple(values))


def joined_steps(kinds: Any, parts: Sequence[Any]) -> Any:
    """What the steps of a generation have given, one behind the other along the tokens.

    ``kinds`` has for each tensor its dtype, its shape (``None`` for the tokens) and the axis of these.
    """
    if kinds is None:
        return None
    if not isinstance(kinds[0], str):
        return tuple(joined_steps(kind, [part[i] for part in parts]) for i, kind in enumerate(kinds))
    dtype, shape, axis = kinds
    if not parts:
        return torch.zeros([size or 0 for size in shape], dtype=getattr(torch, dtype))
    tasks = next((len(part.stacked) for part in parts if isinstance(part, Each)), None)
    if tasks is None:
        return torch.cat(list(parts), axis)
    each = [part.stacked if isinstance(part, Each) else part.expand(tasks, *part.shape) for part in parts]
    return Each(torch.cat(each, axis + 1))


def column(values: Sequence[Any]) -> Any:
    """What the tasks bind to one parameter: the value itself if it is the same for all."""
    first = values[0]
    same = all(value is first or _is_same(value, first) for value in values)
    return first if same else Rows(tuple(values))


def _is_same(value: Any, other: Any) -> bool:
    """Whether two plain values are equal, the sign of zero included."""
    if type(value) is not type(other) or value != other:
        return False
    return not isinstance(value, float) or copysign(1.0, value) == copysign(1.0, other)


def compact(value: Any) -> Any:
    """``value`` without memory behind it that is much larger than what is seen of it."""

    def leaf(one: Any) -> Any:
        if isinstance(one, Each):
            return Each(_compact(one.stacked))
        if isinstance(one, Rows):
            return Rows(tuple(compact(own) for own in one.values))
        return _compact(one) if isinstance(one, torch.Tensor) else one

    return mapped(value, leaf)


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    seen = tensor.numel() * tensor.element_size()
    return tensor if tensor.untyped_storage().nbytes() <= 2 * seen else tensor.clone()


def has_nan(value: Any, tasks: int) -> list[int]:
    """Which of the tasks have NaN in their value."""
    found: set[int] = set()
    for one in leaves(value):
        if isinstance(one, Each) and one.stacked.is_floating_point():
            found.update(torch.isnan(one.stacked).flatten(1).any(1).nonzero().flatten().tolist())
        elif isinstance(one, Rows):
            found.update(place for place, own in enumerate(one.values) if has_nan(own, 1))
        elif isinstance(one, torch.Tensor) and one.is_floating_point() and bool(torch.isnan(one).any()):
            found.update(range(tasks))
    return sorted(found)


def is_scalar(value: Any) -> bool:
    """Whether a task's value is one floating-point number in a tensor."""
    return isinstance(value, torch.Tensor) and value.numel() == 1 and value.is_floating_point()


def total(values: Sequence[Any]) -> Any:
    """The sum of one task's values of one shape; of tuples that of each item, and ``None`` stays."""
    first = values[0]
    if isinstance(first, tuple):
        return tuple(total(own) for own in zip(*values, strict=True))
    return first if first is None else torch.stack(list(values)).sum(0)


def on_one_device(args: Any) -> Any:
    """The arguments with every tensor on the device of the first one."""
    device: torch.device | None = None

    def leaf(one: Any) -> Any:
        nonlocal device
        if isinstance(one, Each):
            return Each(leaf(one.stacked))
        if isinstance(one, Rows):
            return Rows(tuple(mapped(own, leaf) for own in one.values))
        if isinstance(one, torch.Tensor):
            device = device or one.device
            return one.to(device)
        return one

    return mapped(args, leaf)
