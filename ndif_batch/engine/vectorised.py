"""Operations on the values of many tasks at once; what cannot be done so is refused, and done task by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from ndif_batch.engine.bounds import CHECKS
from ndif_batch.engine.indices import WHOLE, one_part_an_axis
from ndif_batch.engine.kernels import KERNELS
from ndif_batch.engine.values import Each, Rows, leaves, mapped

ARITHMETIC: Final[Mapping[str, Callable[..., torch.Tensor]]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "truediv": torch.true_divide,
}

EXACT_INTS: Final = 2**53
"""Up to here every int is a float64."""

ONE_BY_ONE: Final = frozenset({"isclose", "kl_div", "quantile"})
"""Operations that ``torch.vmap`` batches by a loop, and warns that it does."""

PROMOTING: Final = ("mul", "truediv", "floordiv", "mod", "eq", "ne", "lt", "le", "gt", "ge", "where")


def _promotes(bound: Mapping[str, Any]) -> bool:
    """Whether a tensor without axes meets another dtype: there it counts less, which ``torch.vmap`` does not heed."""
    tensors = [one for arg in bound.values() if (one := _of_one_task(arg)) is not None]
    kinds = {one.dtype for one in tensors}
    meets_number = any(isinstance(arg, int | float) for arg in bound.values()) and not all(
        kind.is_floating_point for kind in kinds
    )
    return (len(kinds) > 1 or meets_number) and any(not one.ndim for one in tensors)


def _has_no_axes(name: str) -> Callable[[Mapping[str, Any]], bool]:
    def without(bound: Mapping[str, Any]) -> bool:
        tensor = _of_one_task(bound[name])
        return tensor is not None and not tensor.ndim

    return without


def _keeps_all(bound: Mapping[str, Any]) -> bool:
    return bound["dim"] is None and bound["keepdim"]


def _of_one_task(arg: Any) -> torch.Tensor | None:
    if isinstance(arg, Each):
        return arg.stacked[0]
    return arg if isinstance(arg, torch.Tensor) else None


OTHERWISE: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    **dict.fromkeys(PROMOTING, _promotes),
    **dict.fromkeys(("argmax", "argmin"), _keeps_all),
    "index_select": _has_no_axes("index"),
    "masked_fill": _has_no_axes("value"),
    "roll": _has_no_axes("input"),
}
"""For which arguments ``torch.vmap`` gives something else than the operation gives to each task."""


class OneByOneError(Exception):
    """These arguments have no way to go together."""


def apply(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], device: torch.device) -> Any:
    """The operation's value for all tasks. ``OneByOneError``, or whatever torch raises, if it has to go one by one."""
    if name == "getitem" and len(args) == 2 and not kwargs and isinstance(args[0], Each):
        found = _plain_index(args[0].stacked, args[1])
        if found is not None:
            return Each(found)
    if name in ARITHMETIC and len(args) == 2 and not kwargs and any(isinstance(arg, Rows) for arg in args):
        return Each(_with_numbers(name, *args))
    operation = KERNELS[name].operation
    if operation.random or name in ONE_BY_ONE or (device.type != "cpu" and name in CHECKS):
        raise OneByOneError
    if name in OTHERWISE and OTHERWISE[name](operation.arrange(args, kwargs)):
        raise OneByOneError
    return _vmapped(name, args, kwargs, device)


def _vmapped(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], device: torch.device) -> Any:
    def kernel(*given: Any) -> Any:
        plain, named = given[: len(args)], given[len(args) :]
        return KERNELS[name](*plain, device=device, **dict(zip(kwargs, named, strict=True)))

    return mapped_over(kernel, (*args, *kwargs.values()))


def mapped_over(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """``function`` of the arguments of every task, by ``torch.vmap``."""
    if any(isinstance(leaf, Rows) for leaf in leaves(args)):
        raise OneByOneError
    tensors = [leaf.stacked for leaf in leaves(args) if isinstance(leaf, Each)]

    def one(*own: torch.Tensor) -> Any:
        rest = iter(own)
        return function(*mapped(args, lambda leaf: next(rest) if isinstance(leaf, Each) else leaf))

    return mapped(torch.vmap(one)(*tensors), Each)


def taken(stacked: torch.Tensor, parts: Sequence[Any]) -> torch.Tensor:
    """``[tasks, …]`` indexed with one part for each further axis: an int, a slice, or an int for each task.

    ``IndexError`` if an int is outside; ``OneByOneError`` for any other part.
    """
    for axis in reversed(range(len(parts))):
        part = parts[axis]
        before: tuple[Any, ...] = (slice(None),) * axis
        if isinstance(part, Rows):
            places = _places(part, stacked.shape[axis + 1], stacked.device)
            stacked = stacked[torch.arange(len(places), device=stacked.device), *before, places]
        elif isinstance(part, slice):
            if part != slice(None):
                stacked = stacked[:, *before, part]
        elif type(part) is int:
            stacked = stacked.select(axis + 1, part)
        else:
            raise OneByOneError
    return stacked


def _plain_index(stacked: torch.Tensor, index: Any) -> torch.Tensor | None:
    parts = one_part_an_axis(index if isinstance(index, tuple) else (index,), stacked.ndim - 1)
    if parts is None:
        return None
    parts = tuple(slice(None) if part is WHOLE else part for part in parts)
    return taken(stacked, parts) if all(is_plain(part) for part in parts) else None


def is_plain(part: Any) -> bool:
    """Whether :func:`taken` knows a part of an index."""
    if isinstance(part, slice):
        return all(value is None or type(value) is int for value in (part.start, part.stop, part.step))
    if isinstance(part, Rows):
        return all(type(value) is int for value in part.values)
    return type(part) is int


def _places(part: Rows, length: int, device: torch.device) -> torch.Tensor:
    for place in part.values:
        if not -length <= place < length:
            raise IndexError(f"index {place} is out of bounds for dimension of size {length}")
    return uploaded([place % length for place in part.values], device)


def uploaded(numbers: Any, device: torch.device) -> torch.Tensor:
    """Whole numbers on a device, without waiting for what it does."""
    tensor = torch.as_tensor(numbers, dtype=torch.long)
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _with_numbers(name: str, left: Any, right: Any) -> torch.Tensor:
    """Arithmetic between tensors and a Python number for each task, rounded as torch rounds it task by task."""
    tensor, numbers = (right, left) if isinstance(left, Rows) else (left, right)
    like = _of_one_task(tensor)
    if like is None or like.ndim == 0 or not like.is_floating_point():
        raise OneByOneError
    stacked = tensor.stacked if isinstance(tensor, Each) else tensor[None]
    wide = like.dtype if like.dtype == torch.float64 else torch.float32
    exact = _numbers(numbers)
    if name == "truediv" and numbers is right and like.device.type != "cpu":
        name, exact = "mul", exact.reciprocal()
    others = exact.to(wide).reshape(-1, *[1] * like.ndim)
    if name in ("add", "sub") and like.device.type == "cpu":
        others = others.to(like.dtype).to(wide)
    others = others.to(like.device)
    if name == "truediv" and numbers is left:
        result = stacked.reciprocal().to(wide) * others
    else:
        sides = (others, stacked.to(wide)) if numbers is left else (stacked.to(wide), others)
        result = ARITHMETIC[name](*sides)
    return result.to(like.dtype)


def _numbers(numbers: Any) -> torch.Tensor:
    """A float64 for each task; ``OneByOneError`` for what is no number, or an int that float64 does not have."""
    if not isinstance(numbers, Rows):
        raise OneByOneError
    for value in numbers.values:
        if type(value) is not float and not (type(value) is int and abs(value) <= EXACT_INTS):
            raise OneByOneError
    return torch.tensor(numbers.values, dtype=torch.float64)
