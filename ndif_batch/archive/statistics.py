"""Statistics of what tasks save: of some of them, of two such together, and the result.

What is kept of some observations is one row of float64 numbers, the fields of :class:`ReducedSpec` one after the
other; zeros are no observations. Deviations from means are put together by the pairwise update of Chan, Golub and
LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), so that large means lose no
digits of small variances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from ndif_batch.archive.arrays import sentinel
from ndif_batch.archive.grid import Grid
from ndif_batch.archive.reduction import CHOSEN, ReducedSpec, ReduceOp

State: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
"""Rows ``[..., fields]``."""
Fields: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
Values: TypeAlias = "Sequence[np.ndarray[Any, Any]]"


@np.errstate(all="ignore")
def observed(spec: ReducedSpec, values: Values, tasks: Sequence[int]) -> State:
    """The state of what some ``tasks``, in order, saved: ``[fields]``. Each value has its own length where ragged."""
    rows = [_rows(spec, value) for value in values]
    x = np.concatenate(rows).astype(np.float64)
    found: Fields = {"count": np.array(len(x))}
    match spec.op:
        case ReduceOp.MEAN | ReduceOp.SUM:
            found["sum"] = x.sum(0)
        case ReduceOp.VAR | ReduceOp.STD:
            found["mean"] = x.mean(0) if len(x) else x.sum(0)
            found["squares"] = np.square(x - found["mean"]).sum(0)
        case ReduceOp.COV:
            found["mean"] = x.mean(0) if len(x) else x.sum(0)
            found["squares"] = _gram(x - found["mean"])
        case ReduceOp.GRAM:
            found["squares"] = _gram(x)
        case ReduceOp.MIN | ReduceOp.MAX if len(x):
            found["value"] = x.min(0) if spec.op is ReduceOp.MIN else x.max(0)
        case ReduceOp.TOPK:
            found["value"], found["observation"] = _largest(spec, x, _numbers(spec, values, tasks))
        case _:
            pass
    return packed(spec, found)


@np.errstate(all="ignore")
def merged(spec: ReducedSpec, a: State, b: State) -> State:
    """The state of both together; ``a`` is of earlier tasks than ``b``. Row by row."""
    one, other = unpacked(spec, a), unpacked(spec, b)
    n, m = one["count"], other["count"]
    found: Fields = {"count": n + m}
    match spec.op:
        case ReduceOp.VAR | ReduceOp.STD | ReduceOp.COV:
            both = np.maximum(n + m, 1)
            apart = other["mean"] - one["mean"]
            found["mean"] = one["mean"] + apart * _wide(m / both, apart)
            product = apart[..., :, None] * apart[..., None, :] if spec.op is ReduceOp.COV else np.square(apart)
            found["squares"] = one["squares"] + other["squares"] + product * _wide(n * (m / both), product)
        case ReduceOp.MIN | ReduceOp.MAX:
            x, y = one["value"], other["value"]
            best = np.minimum(x, y) if spec.op is ReduceOp.MIN else np.maximum(x, y)
            found["value"] = np.where(_wide(n == 0, x), y, np.where(_wide(m == 0, x), x, best))
        case ReduceOp.TOPK:
            axis = len(n.shape)
            values, places = (np.concatenate([one[f], other[f]], axis) for f in ("value", "observation"))
            order = np.lexsort((places, -values, np.isnan(values), places == 0), axis=axis)
            first = np.take(order, np.arange(spec.k), axis)
            found["value"], found["observation"] = (np.take_along_axis(f, first, axis) for f in (values, places))
        case _:
            found |= {name: one[name] + other[name] for name in one if name != "count"}
    return packed(spec, found)


@np.errstate(all="ignore")
def results(spec: ReducedSpec, state: State, tasks: Grid, axes: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays that follow from a state: the result, its count, and where the values of ``topk`` come from.

    Where there are too few observations stands what stands where nothing is saved.
    """
    fields = unpacked(spec, state)
    count = fields["count"].astype(np.int64)
    if spec.count is None:
        return {spec.name: count}
    found = {spec.name: _result(spec, fields), spec.count: count}
    if spec.op is ReduceOp.TOPK:
        at = np.moveaxis(fields["observation"], count.ndim, -1).astype(np.int64) - 1
        found |= {name: np.where(at < 0, -1, places) for name, places in _places(spec, np.maximum(at, 0), tasks, axes)}
    return found


def _result(spec: ReducedSpec, fields: Fields) -> np.ndarray[Any, Any]:
    n = fields["count"]
    match spec.op:
        case ReduceOp.SUM | ReduceOp.MEAN:
            value = fields["sum"] / (_wide(np.maximum(n, 1), fields["sum"]) if spec.op is ReduceOp.MEAN else 1)
        case ReduceOp.GRAM:
            value = fields["squares"]
        case ReduceOp.VAR | ReduceOp.STD | ReduceOp.COV:
            n = np.maximum(n - spec.ddof, 0)
            value = fields["squares"] / _wide(np.maximum(n, 1), fields["squares"])
            value = np.sqrt(value) if spec.op is ReduceOp.STD else value
        case _:
            value = fields["value"]
    if spec.op is ReduceOp.TOPK:
        value, there = (np.moveaxis(one, n.ndim, -1) for one in (value, fields["observation"] > 0))
    else:
        there = np.broadcast_to(_wide(n > 0, value), value.shape)
    if spec.op not in CHOSEN:
        return np.where(there, value, np.nan)
    dtype = spec.result.dtype
    return np.where(there, value, 0).astype(dtype) if there.all() else _with_gaps(value, there, dtype)


def _with_gaps(value: np.ndarray[Any, Any], there: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    found = np.where(there, value, 0).astype(dtype)
    found[~there] = sentinel(dtype)
    return found


def unpacked(spec: ReducedSpec, state: State) -> Fields:
    """The fields of a state by name, each ``[..., its shape]``."""
    found, at = {}, 0
    for name, shape in spec.fields.items():
        size = prod(shape)
        found[name] = state[..., at : at + size].reshape((*state.shape[:-1], *shape))
        at += size
    return found


def packed(spec: ReducedSpec, fields: Mapping[str, Any]) -> State:
    """The inverse of :func:`unpacked`; a field that is missing is zero."""
    rows = np.shape(fields["count"])
    state = np.zeros((*rows, spec.state_size))
    for name, place in unpacked(spec, state).items():
        if name in fields:
            place[...] = fields[name]
    return state


def _rows(spec: ReducedSpec, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The observations in one task's value: ``[observations, what stays]``."""
    if spec.op is ReduceOp.COUNT:
        return np.empty((prod(value.shape[at] for at in spec.own), 0))
    first = np.moveaxis(value, spec.own, range(len(spec.own)))
    return first.reshape(-1, *first.shape[len(spec.own) :])


def _numbers(spec: ReducedSpec, values: Values, tasks: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A number for each observation: ascending, from 1, the same however tasks are put together."""
    longest = tuple(spec.source.shape[at] for at in spec.own)
    found = []
    for value, task in zip(values, tasks, strict=True):
        inside = np.arange(prod(longest)).reshape(longest)[tuple(slice(value.shape[at]) for at in spec.own)]
        found.append(1 + task * prod(longest) + inside.reshape(-1))
    return np.concatenate(found)


def _largest(spec: ReducedSpec, x: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """The ``k`` largest along the first axis and their numbers; of equal ones the first, NaN last."""
    order = np.argsort(-x, axis=0, kind="stable")[: spec.k]
    values, places = np.zeros((2, spec.k, *x.shape[1:]))
    values[: len(order)], places[: len(order)] = np.take_along_axis(x, order, 0), numbers[order]
    return values, places


def _places(spec: ReducedSpec, at: np.ndarray[Any, Any], tasks: Grid, axes: Sequence[str]) -> Any:
    """Where along each reduced dimension observations number ``at`` are."""
    longest = tuple(spec.source.shape[own] for own in spec.own)
    task, inside = np.divmod(at, prod(longest))
    point = dict(zip(axes, np.unravel_index(task, tasks.shape), strict=True))
    if longest:
        point |= dict(zip((spec.source.dims[own] for own in spec.own), np.unravel_index(inside, longest), strict=True))
    return [(name, point[dim]) for name, dim in spec.places.items()]


def _gram(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """XᵀX for each place before the last dimension: ``[n, ..., d]`` → ``[..., d, d]``."""
    rows = np.moveaxis(x, 0, -2)
    product: np.ndarray[Any, Any] = np.swapaxes(rows, -1, -2) @ rows
    return product


def _wide(weights: Any, like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A number for each row, to be multiplied with what each row has."""
    rows = np.asarray(weights)
    return rows.reshape((*rows.shape, *(1,) * (like.ndim - rows.ndim)))
