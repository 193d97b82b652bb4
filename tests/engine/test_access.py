"""What tasks take from a site and put into it, against the same on a tensor for each run by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.access import SiteAccess
from ndif_batch.engine.kernels import KERNELS
from ndif_batch.engine.pack import Lanes, Pack
from ndif_batch.engine.values import Each, Rows, joined, leaves, of_task
from ndif_batch.engine.vectorised import OneByOneError
from ndif_batch.graph.sites import SiteTensor, SiteValue

Index: TypeAlias = tuple[Any, ...]

FEW = settings(max_examples=500, deadline=None)
CPU = torch.device("cpu")
REFUSALS = (OneByOneError, IndexError, RuntimeError, TypeError, ValueError)

HIDDEN = SiteTensor((1, None, 4), "float32")
ROUTER = SiteTensor((None, 3), "float32")
HEADS = SiteTensor((1, 2, None, 3), "float32")
SHARED = SiteTensor((5,), "float32")
SITES: dict[str, SiteValue] = {
    "hidden": HIDDEN,
    "router": ROUTER,
    "heads": HEADS,
    "tuple": (HIDDEN, None, (ROUTER, HEADS)),
}

TRUNKS = Lanes.of([(1, 2, 3), (4,), (5, 6, 7, 8), (9, 1, 1)])
BRANCHED = Lanes.of(
    ((1, 2, 3), (1, 2, 3), (4, 5, 6, 7), (1, 2, 3), (4, 5, 6, 7)),
    np.array([0, 1, 0, 0, 3]),
    np.array([0, 0, 2, 0, 2]),
)


def packs() -> Iterator[Pack]:
    yield Pack.of(TRUNKS)
    yield Pack.of(BRANCHED).with_lanes(np.arange(5), CPU)[0]


PACKS = list(packs())


def filled(shape: SiteValue, tokens: int, first: int = 0) -> Any:
    """A value of a site in a pack: every element is another number."""
    if isinstance(shape, tuple):
        return tuple(filled(part, tokens, first + 1000 * (i + 1)) for i, part in enumerate(shape))
    if shape is None:
        return None
    size = shape.at(tokens)
    return (torch.arange(float(np.prod(size))) + first).reshape(size)


def alone(value: Any, shape: SiteValue, pack: Pack, lane: int) -> Any:
    """What the run of a lane would have by itself."""
    if isinstance(shape, tuple):
        return tuple(alone(item, part, pack, lane) for item, part in zip(value, shape, strict=True))
    if not isinstance(shape, SiteTensor):
        return None
    length = len(pack.lanes.prompts[lane])
    seats = pack.places(np.full(length, lane), np.arange(length)).tolist()
    return torch.stack([value.select(shape.token_axes[0], seat) for seat in seats], shape.token_axes[0])


def taken(view: Any, index: Index) -> Any:
    """What torch takes of a view: items of tuples first."""
    while isinstance(view, tuple) and index:
        if not -len(view) <= index[0] < len(view):
            raise IndexError(index[0])
        view, index = view[index[0]], index[1:]
    return KERNELS["getitem"](view, index) if index else view


def written(view: Any, index: Index, new: Any) -> Any:
    """A view after torch's own assignment."""
    if isinstance(view, tuple) and index:
        at = range(len(view))[index[0]]
        return (*view[:at], written(view[at], index[1:], new), *view[at + 1 :])
    if isinstance(view, tuple):
        return tuple(None if item is None else written(item, (), part) for item, part in zip(view, new, strict=True))
    if view is None:
        raise TypeError("nothing")
    copy = view.clone()
    copy[index if index else ...] = new
    return copy


def same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) or isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def copied(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(copied(item) for item in value)
    return None if value is None else value.clone()


def attempt(action: Any) -> tuple[Any, bool]:
    """A result, or that there is none."""
    try:
        return action(), True
    except REFUSALS:
        return None, False


@st.composite
def part(draw: st.DrawFn, tasks: int) -> Any:
    """A part of an index: a position of all, a position of each, or a slice."""
    position = st.integers(-5, 4)
    if draw(st.booleans()):
        bound = st.none() | position
        return slice(draw(bound), draw(bound), draw(st.sampled_from([None, None, 1, 2])))
    if draw(st.booleans()):
        return draw(position)
    return Rows(tuple(draw(st.lists(position, min_size=tasks, max_size=tasks))))


@st.composite
def an_index(draw: st.DrawFn, tasks: int, shape: SiteValue) -> Index:
    """An index that often fits: items of tuples, then parts, ``...`` somewhere among them."""
    items: Index = ()
    while isinstance(shape, tuple):
        if draw(st.integers(0, 4)) == 0:
            return items
        at = draw(st.integers(-len(shape), len(shape) - 1))
        items, shape = (*items, at), shape[at]
    if shape is None:
        return items
    parts = draw(st.lists(part(tasks), max_size=len(shape.shape)))
    kind = draw(st.sampled_from(["plain", "dots before", "dots after", "list"]))
    if kind == "list" and parts:
        parts[-1] = tuple(draw(st.lists(st.integers(-2, 2), min_size=1, max_size=3)))
    return (*items, *([...] if kind == "dots before" else []), *parts, *([...] if kind == "dots after" else []))


@st.composite
def a_visit(draw: st.DrawFn) -> tuple[SiteValue, Pack, list[int], Index]:
    """A site, a pack, a lane for each of up to five tasks, and an index."""
    shape, pack = SITES[draw(st.sampled_from(sorted(SITES)))], draw(st.sampled_from(PACKS))
    lanes = draw(st.lists(st.integers(0, len(pack.lanes.prompts) - 1), min_size=1, max_size=5))
    return shape, pack, lanes, draw(an_index(len(lanes), shape))


@FEW
@given(visit=a_visit())
def test_what_tasks_take_is_what_each_takes_of_its_own_run(visit: tuple[SiteValue, Pack, list[int], Index]) -> None:
    shape, pack, lanes, index = visit
    value = filled(shape, pack.tokens)
    before = copied(value)
    access = SiteAccess(value, shape, pack)
    found, together = attempt(lambda: access.take(np.array(lanes), index))
    for task, lane in enumerate(lanes):
        own = of_task(index, task)
        expected, fits = attempt(lambda lane=lane, own=own: taken(alone(before, shape, pack, lane), own))
        one, is_one = attempt(lambda lane=lane, own=own: access.take_one(lane, own))
        assert is_one == fits
        assert not fits or same(one, expected)
        assert not together or fits
        assert not together or same(of_task(found, task), expected)
    assert same(access.value, before)
    assert access.value is value
    assert not access.written


@FEW
@given(visit=a_visit(), data=st.data())
def test_what_tasks_put_changes_their_own_runs_alone(
    visit: tuple[SiteValue, Pack, list[int], Index], data: st.DataObject
) -> None:
    shape, pack, lanes, index = visit
    lanes = list(dict.fromkeys(lanes))
    index = tuple(Rows(one.values[: len(lanes)]) if isinstance(one, Rows) else one for one in index)
    whole = Pack.of(Lanes.of(pack.lanes.prompts))  # a run that is written owns what it writes
    value = filled(shape, whole.tokens)
    before = copied(value)
    new = data.draw(new_values(before, shape, whole, lanes, index), "new")
    expected = [attempt(lambda task=task: put_alone(before, shape, whole, lanes, index, new, task)) for task in
                range(len(lanes))]  # fmt: skip
    access = SiteAccess(value, shape, whole)
    _, together = attempt(lambda: access.put(np.array(lanes), index, new))
    if together:
        assert all(fits for _, fits in expected)
    else:
        assert same(access.value, before)
        for task, lane in enumerate(lanes):
            _, fits = attempt(lambda task=task, lane=lane: put_one(access, lane, index, new, task))
            assert fits == expected[task][1]
    for lane in range(len(whole.lanes.prompts)):
        now, fits = expected[lanes.index(lane)] if lane in lanes else (None, False)
        assert same(alone(access.value, shape, whole, lane), now if fits else alone(before, shape, whole, lane))
    assert same(value, before), "the tensor that others may hold has changed"


def put_one(access: SiteAccess, lane: int, index: Index, new: Any, task: int) -> None:
    access.put_one(lane, of_task(index, task), of_task(new, task))


def put_alone(before: Any, shape: SiteValue, pack: Pack, lanes: list[int], index: Index, new: Any, task: int) -> Any:
    return written(alone(before, shape, pack, lanes[task]), of_task(index, task), of_task(new, task))


@st.composite
def new_values(draw: st.DrawFn, before: Any, shape: SiteValue, pack: Pack, lanes: list[int], index: Index) -> Any:
    """A number, or tensors of what the parts have or less, the same for all tasks or each task's own."""
    if draw(st.booleans()):
        return draw(st.sampled_from([0.5, -1, True, float("inf")]))
    own = []
    for task, lane in enumerate(lanes):
        part, fits = attempt(lambda lane=lane, task=task: taken(alone(before, shape, pack, lane), of_task(index, task)))
        own.append(part if fits and part is not None else torch.zeros(2))
    if any(isinstance(one, tuple) for one in own):
        return joined([mapped_negative(one) for one in own])
    kind: str = draw(st.sampled_from(["whole", "cut", "ones", "extra", "wrong", "double"]))
    changed = [changed_shape(one, kind) for one in own]
    return changed[0] if draw(st.booleans()) else joined(changed)


def mapped_negative(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(mapped_negative(item) for item in value)
    return None if value is None else -value


def changed_shape(value: torch.Tensor, kind: str) -> torch.Tensor:
    match kind:
        case "cut":
            return -value[0] if value.ndim and len(value) else -value
        case "ones":
            return -value[..., :1] if value.ndim else -value
        case "extra":
            return -value[None]
        case "wrong":
            return torch.ones(7, *value.shape)
        case "double":
            return -value.double()
    return -value


def test_putting_copies_once_and_only_what_is_written() -> None:
    pack = Pack.of(TRUNKS)
    value = filled((HIDDEN, ROUTER), pack.tokens)
    access = SiteAccess(value, (HIDDEN, ROUTER), pack)
    access.put_one(0, (0, slice(None), 0), 5.0)
    first = access.value[0]
    access.put(np.array([1, 2]), (0, slice(None), 0), 7.0)
    assert access.written
    assert first is access.value[0]
    assert first is not value[0]
    assert access.value[1] is value[1]


def test_a_put_of_some_that_does_not_fit_one_changes_nothing() -> None:
    pack = Pack.of(TRUNKS)
    value = filled(HIDDEN, pack.tokens)
    access = SiteAccess(value, HIDDEN, pack)
    with pytest.raises(OneByOneError):
        access.put(np.array([0, 1]), (slice(None), 2), torch.zeros(4))
    assert same(access.value, filled(HIDDEN, pack.tokens))
    with pytest.raises(OneByOneError):
        access.put(np.array([0, 2]), (slice(None), 2), torch.zeros(5))
    assert same(access.value, filled(HIDDEN, pack.tokens))


def test_values_without_tokens_are_taken_whole_and_as_a_copy() -> None:
    value = filled(SHARED, 8)
    access = SiteAccess(value, SHARED, PACKS[0])
    found = access.take_one(1, ())
    assert same(found, value)
    found.zero_()
    assert same(access.value, filled(SHARED, 8))
    with pytest.raises(OneByOneError):
        access.take(np.array([0, 1]), ())


def test_what_is_taken_is_no_window_on_the_site() -> None:
    pack = Pack.of(TRUNKS)
    value = filled(HIDDEN, pack.tokens)
    access = SiteAccess(value, HIDDEN, pack)
    for found in (access.take(np.array([0, 3]), (0,)), access.take(np.array([0, 0]), (0, 1)), access.take_one(2, ())):
        for leaf in leaves(found):
            (leaf.stacked if isinstance(leaf, Each) else leaf).zero_()
    assert same(access.value, filled(HIDDEN, pack.tokens))


def test_an_item_that_the_site_does_not_hold_is_named() -> None:
    access = SiteAccess(filled((HIDDEN, None), 8), (HIDDEN, None), Pack.of(TRUNKS))
    with pytest.raises(IndexError, match="holds 2 values; 2 is none of them"):
        access.put_one(0, (2, 0), 1.0)
    with pytest.raises(TypeError, match="is no tensor"):
        access.put_one(0, (1,), 1.0)
    with pytest.raises(TypeError, match="write one of them or a tuple of 2"):
        access.put_one(0, (), 1.0)
