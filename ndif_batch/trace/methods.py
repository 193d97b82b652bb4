"""Attributes of recorded values: tensor methods are recorded, and what needs a real tensor is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ndif_batch.errors import TraceError
from ndif_batch.trace import functions
from ndif_batch.trace.constants import dtype_name, is_dtype
from ndif_batch.trace.operand import Operand
from ndif_batch.trace.place import refusal, user_place

if TYPE_CHECKING:
    from ndif_batch.trace.proxy import Proxy

_LENGTHS = "count dimensions from the end, or look with `with lm.scan(prompt):`"
_SAVE = "use .save(name): the value is in the results"
_ABSENT: Mapping[str, str] = {
    "dim": _LENGTHS,
    "ndim": _LENGTHS,
    "numel": _LENGTHS,
    "dtype": "t.scan(...) gives the dtype of everything saved; .to(dtype) and .float() convert",
    "device": "the worker decides where tensors lie",
    "item": _SAVE,
    "tolist": _SAVE,
    "numpy": _SAVE,
    "data": "use the value itself",
}
_PROPERTIES: Mapping[str, tuple[Any, ...]] = {
    "shape": ("size",),
    "T": ("permute", 1, 0),
    "mT": ("transpose", -2, -1),
}
_SAME = ("contiguous", "cpu", "cuda", "requires_grad_", "retain_grad")
"""Without effect: where tensors lie is the worker's to decide, and whatever is read at a site has a gradient."""


class UnknownMethodError(TraceError, AttributeError):
    """There is no such method; an ``AttributeError`` too, so that ``hasattr`` answers."""


def find(value: Proxy, name: str) -> Any:
    """What ``value.name`` means while an experiment is recorded."""
    if name.startswith("_"):
        raise AttributeError(name)
    recorder = value._recorder
    if recorder.look is not None and name in recorder.looked:
        return recorder.looked[name](recorder.look(value.current()))
    if name in _ABSENT:
        message = f"{user_place()}: .{name} is not known while an experiment is recorded"
        raise UnknownMethodError(message, hint=_ABSENT[name])
    if name in _PROPERTIES:
        operation, *arguments = _PROPERTIES[name]
        return value._apply(operation, value, *arguments)
    if name in _SAME:
        return lambda *args, **kwargs: value
    if name in functions.CASTS:
        return lambda: value._apply("cast", value, functions.CASTS[name])
    if name in _SPECIAL:
        return partial(_SPECIAL[name], value)
    if name.endswith("_") and functions.find(name[:-1]) is not None:
        return lambda *args, **kwargs: value._change(value._apply(name[:-1], value, *args, **kwargs))
    if functions.find(name) is not None:
        return partial(value._apply, name, value)
    message = f"{user_place()}: a recorded value has no method {name!r}"
    raise UnknownMethodError(message, hint=functions.nearest_operation(name))


def _to(value: Proxy, *args: Any, **kwargs: Any) -> Any:
    """``.to(dtype)``; a device is passed over, because the worker decides where tensors lie."""
    wanted = [arg for arg in (*args, kwargs.get("dtype")) if is_dtype(arg)]
    if any(isinstance(arg, Operand) for arg in args):
        raise refusal(".to(another value) is not known while recorded", hint="name the dtype: .to(torch.float32)")
    return value._apply("cast", value, dtype_name(wanted[0])) if wanted else value


def _where(value: Proxy, condition: Any, other: Any) -> Any:
    return value._apply("where", condition, value, other)


def _fill(value: Proxy, other: Any) -> Proxy:
    value[...] = other
    return value


def _zero(value: Proxy) -> Proxy:
    return _fill(value, 0)


_SPECIAL: Mapping[str, Callable[..., Any]] = {
    "to": _to,
    "type": _to,
    "where": _where,
    "copy_": _fill,
    "fill_": _fill,
    "zero_": _zero,
}
