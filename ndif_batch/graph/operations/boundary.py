"""Operations that touch the model or leave the graph: reads, writes, modules, gradients, control, saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ndif_batch.errors import ShapeError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.dtypes import FLOATS, number_dtype
from ndif_batch.graph.operations.costs import elements, free
from ndif_batch.graph.operations.indexing import check_fits, put
from ndif_batch.graph.operations.operation import Kind, Operation, Price, Rule
from ndif_batch.graph.signatures import describe, parse_signature
from ndif_batch.graph.sites import SiteTensor, SiteValue

Tensor: TypeAlias = AbstractTensor


def _site(site: Abstract) -> Abstract:
    return site


def _write(value: Abstract, site: Abstract, index: tuple[Any, ...] | None) -> Abstract:
    if index:
        put(site, index, value)
    else:
        _check_whole(value, site)
    return None


def _check_whole(value: Abstract, site: Abstract) -> None:
    if isinstance(site, AbstractTensor):
        check_fits(value, site)
    elif not isinstance(site, tuple):
        raise ShapeError("the site gives no tensor that could be written to")
    elif not isinstance(value, tuple) or len(value) != len(site):
        raise ShapeError(f"the site gives a tuple of {len(site)}; write to one item of it, or a tuple as long")
    else:
        for part, place in zip(value, site, strict=True):
            _check_whole(part, place)


def _skip(value: Abstract, site: Abstract) -> Abstract:
    _check_whole(value, site)
    return None


def _grad(value: Abstract, backward: Abstract) -> Abstract:
    found = _differentiable(value)
    if found is None:
        raise ShapeError(f"only floating-point values have gradients, not {describe(value)}")
    return found


def _differentiable(value: Abstract) -> Abstract:
    if isinstance(value, tuple):
        items = tuple(_differentiable(item) for item in value)
        return None if all(item is None for item in items) else items
    return value if isinstance(value, AbstractTensor) and value.dtype in FLOATS else None


def _backward(input: Tensor) -> Abstract:
    if input.size != 1 or input.dtype not in FLOATS:
        raise ShapeError(f"backward needs one floating-point number, not {describe(input)}")
    return None


def _call(input: Tensor, takes: SiteValue, gives: SiteValue) -> Abstract:
    """A module that works on the last axis (``[…, in] -> […, out]``) or looks ids up (``[…] -> […, out]``)."""
    if not isinstance(takes, SiteTensor) or not isinstance(gives, SiteTensor) or not gives.shape:
        raise ShapeError("call needs a module that takes one tensor and gives one")
    if input.dtype != takes.dtype:
        raise ShapeError(f"the module takes {takes.dtype}, not {input.dtype}; cast it")
    *lead, last = gives.shape
    if last is None or tuple(lead) not in (takes.shape, takes.shape[:-1]):
        raise ShapeError("call needs a module that works on each position by itself")
    if tuple(lead) == takes.shape:
        return Tensor((*input.shape, last), gives.dtype)
    if not input.shape or input.shape[-1] != takes.shape[-1]:
        raise ShapeError(f"the module takes values with last axis {takes.shape[-1]}, not {list(input.shape)}")
    return Tensor((*input.shape[:-1], last), gives.dtype)


def _call_price(bound: Mapping[str, Any], result: Abstract) -> int:
    return 2 * elements(bound["input"]) * result.shape[-1] if isinstance(result, AbstractTensor) else 0


def _write_price(bound: Mapping[str, Any], result: Abstract) -> int:
    return elements(bound["value"])


def _stop() -> Abstract:
    return None


def _steps(n: int, temperature: Abstract, top_k: Abstract, top_p: Abstract, stop: Abstract) -> Abstract:
    if n < 1:
        raise ShapeError(f"a generation takes at least one step, not {n}")
    return None


def _tokens(count: int) -> Abstract:
    return Tensor((count,), "int64")


def _saved(value: Abstract) -> Abstract:
    if isinstance(value, AbstractTensor):
        return value
    if isinstance(value, bool | int | float):
        return Tensor((), number_dtype(value))
    raise ShapeError(f"only tensors and numbers can be saved, not {describe(value)}", hint="pick items with [i]")


def _print(value: Abstract) -> Abstract:
    return None


def _row(kind: Kind, signature: str, rule: Rule, doc: str, *fields: str, price: Price = free) -> Operation:
    parsed = parse_signature(signature)
    return Operation(parsed.name, parsed.parameters, kind, rule, price, doc, fields)


def _rows() -> tuple[Operation, ...]:
    boundary, control = Kind.BOUNDARY, Kind.CONTROL
    return (
        _row(
            boundary,
            "read()",
            _site,
            "What a module of a run takes or gives, earlier writes included",
            "run",
            "site",
            "step?",
        ),
        _row(
            boundary,
            "write(value: value)",
            _write,
            "Replaces what a module takes or gives, or what `index` selects of it",
            "run",
            "site",
            "index?",
            "step?",
            price=_write_price,
        ),
        _row(boundary, "tokens()", _tokens, "The tokens that a run generates, as many as it takes steps", "run"),
        _row(boundary, "weight()", _site, "A parameter of the model", "site"),
        _row(boundary, "grad(value: value, backward: value = None)", _grad, "Gradient of a scalar by a read value"),
        _row(
            Kind.APPLY,
            "call(input: tensor)",
            _call,
            "A module of the model applied to a value `[…, in]` (or to ids)",
            "site",
            price=_call_price,
        ),
        _row(
            control,
            "skip(value: value)",
            _skip,
            "Does not run a module; `value` is its output",
            "run",
            "site",
            "step?",
            price=_write_price,
        ),
        _row(control, "stop()", _stop, "Ends a run after what was asked of it before", "run"),
        _row(
            control,
            "steps(n: int, *, temperature: number = None, top_k: int = None, top_p: number = None, stop: ints = None)",
            _steps,
            "Generates `n` tokens, fewer if one of `stop` comes; the likeliest each, or drawn if a number says how",
            "run",
        ),
        _row(control, "backward(input: tensor)", _backward, "Computes gradients of a scalar"),
        _row(Kind.OUT, "save(value: value)", _saved, "Names an array of the job", "name", "dims?"),
        _row(Kind.OUT, "print(value: value)", _print, "Puts a value into the log of the task", "name"),
    )


BOUNDARY = _rows()
