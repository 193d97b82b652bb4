"""Statistics over axes of tasks: what shards keep of them gives what numpy gives of all values."""

from __future__ import annotations

import random
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from ndif_batch.archive import (
    Accumulator,
    ArchiveSpec,
    ArraySpec,
    AxisSpec,
    ReducedSpec,
    ReduceOp,
    Results,
    TaskStatus,
    accumulating,
    archive_size,
    create,
    finish,
    write_shard,
)
from ndif_batch.errors import UsageError

SHAPE = (3, 10, 4)
AXES = tuple(AxisSpec(n, {n: range(k)}) for n, k in zip(("layer", "prompt", "seed"), SHAPE, strict=True))
VECTOR = ArraySpec.saved("x", "float32", (2, 5), ("head", "width"))
NAMES = tuple(axis.name for axis in AXES)
OFFSET = 1e4
"""Far from zero, where sums of squares would lose every digit of a variance."""


def value(task: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (OFFSET + np.random.default_rng(task).standard_normal((2, 5))).astype(np.float32)


OPS: dict[str, tuple[ReduceOp, dict[str, int]]] = {
    **{op.value: (op, {"k": 3} if op is ReduceOp.TOPK else {}) for op in ReduceOp},
    "var1": (ReduceOp.VAR, {"ddof": 1}),
    "cov1": (ReduceOp.COV, {"ddof": 1}),
}


def spec_of(over: tuple[str, ...], tile: tuple[int, ...]) -> ArchiveSpec:
    """An archive of every statistic of one save."""
    reduced = [ReducedSpec.named(name, VECTOR, op, over, NAMES, **more) for name, (op, more) in OPS.items()]
    return ArchiveSpec(AXES, tile, (), {}, tuple(reduced))


def write(path: Path, spec: ArchiveSpec, index: tuple[int, ...], missing: set[int], seed: int = 0) -> None:
    """Write a tile; the values come in some order. Some tasks are missing: they failed or are excluded."""
    tasks = spec.grid.tasks(index)
    sums = [Accumulator(spec, one, tasks.start, len(tasks)) for one in spec.reduced]
    status = [TaskStatus.SAVED] * len(tasks)
    for place in random.Random(seed).sample(range(len(tasks)), len(tasks)):
        if tasks[place] in missing:
            status[place] = TaskStatus.FAILED if tasks[place] % 2 else TaskStatus.EXCLUDED
        else:
            for one in sums:
                one.add(place, value(tasks[place]))
    states = {one.name: total.state() for one, total in zip(spec.reduced, sums, strict=True)}
    write_shard(path, spec, tasks.start, {}, status, states)


def whole(missing: set[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What an archive of all values would hold: [layer, prompt, seed, head, width], NaN where tasks are missing."""
    found = np.stack([np.full((2, 5), np.nan) if task in missing else value(task) for task in range(prod(SHAPE))])
    return found.reshape(*SHAPE, 2, 5).astype(np.float64)


def gram(x: np.ndarray[Any, Any], *, centred: bool) -> np.ndarray[Any, Any]:
    """[kept, n, head, width] → [kept, head, width, width]."""
    x = x - np.nanmean(x, 1, keepdims=True) if centred else x
    found: np.ndarray[Any, Any] = np.einsum("knhi,knhj->khij", np.nan_to_num(x), np.nan_to_num(x))
    return found


def expected(x: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Of ``[kept, n, head, width]``, by the names of ``OPS``."""
    n = (~np.isnan(x[..., 0, 0])).sum(1)
    wide = n[:, None, None, None]
    ordered = np.sort(np.where(np.isnan(x), -np.inf, x), 1)[:, ::-1][:, :3]
    largest = np.full((len(x), 3, 2, 5), np.nan)
    largest[:, : ordered.shape[1]] = np.where(np.isinf(ordered), np.nan, ordered)
    return {
        "mean": np.nanmean(x, 1),
        "sum": np.nansum(x, 1),
        "var": np.nanvar(x, 1),
        "std": np.nanstd(x, 1),
        "cov": gram(x, centred=True) / wide,
        "gram": gram(x, centred=False),
        "count": n,
        "min": np.nanmin(x, 1),
        "max": np.nanmax(x, 1),
        "topk": np.moveaxis(largest, 1, -1),
        "var1": np.nanvar(x, 1, ddof=1),
        "cov1": gram(x, centred=True) / (wide - 1),
    }


MISSING = {0, 5, 17, 44, 81, 119}


@pytest.mark.parametrize(
    ("over", "tile"),
    [
        (("prompt",), (1, 3, 4)),
        (("layer",), (2, 10, 4)),
        (("prompt", "seed"), (1, 4, 4)),
        (("seed",), (1, 5, 4)),
        (NAMES, (1, 7, 4)),
    ],
)
def test_each_is_what_numpy_gives_of_all_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: tuple[str, ...], tile: tuple[int, ...]
) -> None:
    monkeypatch.setattr(accumulating, "BLOCK_BYTES", 7 * VECTOR.bytes_per_task)
    path, spec = tmp_path / "1.zarr", spec_of(over, tile)
    create(path, spec)
    indices = list(spec.grid.indices())
    for index in random.Random(1).sample(indices, len(indices)):
        write(path, spec, index, MISSING)
    kept = [length for name, length in zip(NAMES, SHAPE, strict=True) if name not in over]
    x = np.moveaxis(whole(MISSING), [NAMES.index(name) for name in over], range(len(kept), 3))
    right = expected(x.reshape(prod(kept), -1, 2, 5))
    so_far = Results(path).xarray().load()
    assert Results(path).verify() == []
    finish(path, {})
    assert Results(path).verify() == []
    data = xarray.open_zarr(path).load()
    assert sorted(data.data_vars) == sorted(OPS)
    for name, values in right.items():
        assert data[name].dims[: len(kept)] == tuple(axis for axis in NAMES if axis not in over)
        found = data[name].values.reshape(values.shape)
        np.testing.assert_allclose(found, values, rtol=1e-10, atol=1e-9, err_msg=name)
        xarray.testing.assert_identical(
            so_far[name], data[name].drop_vars([v for v in data[name].coords if v not in so_far[name].coords])
        )
        if name != "count":
            np.testing.assert_array_equal(data[f"{name}_count"].values, right["count"].reshape(kept))
    places = np.stack([data[f"topk_{name}"].values for name in over])
    there = places[0] >= 0
    assert np.array_equal(there, ~np.isnan(data["topk"].values))
    point = dict(zip(data["topk"].dims, np.indices(there.shape), strict=True)) | dict(zip(over, places, strict=True))
    at = tuple(point[dim][there] for dim in (*NAMES, "head", "width"))
    assert np.array_equal(whole(MISSING)[at].astype(np.float32), data["topk"].values[there])


def test_files_and_bytes_are_told_before_and_values_of_tasks_are_not_among_them(tmp_path: Path) -> None:
    path, spec = tmp_path / "1.zarr", spec_of(("prompt",), (1, 5, 4))
    size = archive_size(spec)
    create(path, spec)
    for index in spec.grid.indices():
        write(path, spec, index, set())
    finish(path, {})
    files = [file for file in path.rglob("*") if file.is_file()]
    assert len(files) == size.files
    names = {name for one in spec.reduced for name in one.names}
    assert {file.parent.name for file in files} - {path.name} == {*names, *NAMES, "task_status"}


def test_a_shard_that_is_written_again_counts_once_and_one_that_is_not_there_does_not(tmp_path: Path) -> None:
    path, spec = tmp_path / "1.zarr", spec_of(("prompt", "seed"), (1, 5, 4))
    create(path, spec)
    for seed in range(3):
        write(path, spec, (0, 0, 0), {1}, seed)
    finish(path, {})
    results = Results(path)
    assert np.asarray(results["count"]).tolist() == [19, 0, 0]
    mean = np.asarray(results["mean"])
    np.testing.assert_allclose(mean[0], np.mean([value(task) for task in range(20) if task != 1], 0), rtol=1e-6)
    assert np.isnan(mean[1:]).all()
    assert (results.xarray()["topk_prompt"].values[1:] == -1).all()
    for index in spec.grid.indices():
        write(path, spec, index, set())
    assert np.asarray(Results(path)["count"]).tolist() == [40, 40, 40]
    finish(path, {})
    assert np.asarray(Results(path)["count"]).tolist() == [40, 40, 40]
    (path / "mean_partial" / "c.0.1.0.0").unlink()
    (problem,) = Results(path).verify()
    assert (problem.path, problem.tasks) == ("mean_partial/c.0.1.0.0", range(20, 40))


def test_tokens_are_reduced_too_where_the_user_says_so(tmp_path: Path) -> None:
    ragged = ArraySpec.saved("x", "bfloat16", (4, 3), ("token", "width"), ragged=(0,))
    prompts = (AxisSpec("prompt", {"prompt": range(6)}),)
    with pytest.raises(UsageError, match="not equally long along 'token' in all tasks") as raised:
        ReducedSpec.named("x", ragged, ReduceOp.MEAN, ["prompt"], ["prompt"])
    assert "axis: [prompt, token]" in str(raised.value.hint)
    reduced = [
        ReducedSpec.named(name, ragged, op, ["prompt", "token"], ["prompt"], **more)
        for name, op, more in (("mean", ReduceOp.MEAN, {}), ("top", ReduceOp.TOPK, {"k": 2}))
    ]
    path, spec = tmp_path / "1.zarr", ArchiveSpec(prompts, (4,), (), {}, tuple(reduced))
    create(path, spec)
    values = [np.random.default_rng(k).standard_normal((1 + k % 4, 3)).astype(np.float32) for k in range(6)]
    for tasks in (range(4), range(4, 6)):
        sums = [Accumulator(spec, one, tasks.start, len(tasks)) for one in reduced]
        for task in tasks:
            for one in sums:
                one.add(task - tasks.start, values[task])
        states = {one.name: total.state() for one, total in zip(reduced, sums, strict=True)}
        write_shard(path, spec, tasks.start, {}, [TaskStatus.SAVED] * len(tasks), states)
    finish(path, {})
    results = Results(path)
    tokens = np.concatenate(values)
    np.testing.assert_allclose(np.asarray(results["mean"]), tokens.mean(0), atol=1e-6)
    assert str(results.torch("mean").dtype) == "torch.bfloat16"
    data = results.xarray()
    assert int(data["mean_count"]) == len(tokens)
    for width in range(3):
        for rank in range(2):
            at = int(data["top_prompt"][width, rank]), int(data["top_token"][width, rank])
            assert (
                float(data["top"][width, rank]) == values[at[0]][at[1], width] == np.sort(tokens[:, width])[-1 - rank]
            )


@pytest.mark.parametrize(
    ("op", "over", "more", "message"),
    [
        ("mean", ["promt"], {}, "no axis 'promt' to reduce over"),
        ("mean", ["head"], {}, "at least one axis of the parameters"),
        ("mean", ["prompt", "prompt"], {}, "named twice"),
        ("topk", ["prompt"], {}, "topk needs k"),
        ("mean", ["prompt"], {"k": 2}, "topk needs k"),
        ("max", ["prompt"], {"ddof": 1}, "ddof belongs to var, std, cov"),
        ("cov", ["prompt", "head", "width"], {}, "cov needs vectors"),
    ],
)
def test_what_cannot_be_reduced_is_told(op: str, over: list[str], more: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ReducedSpec.named("x", VECTOR, ReduceOp(op), over, NAMES, **more)


def test_equal_values_rank_by_task_and_nan_comes_last(tmp_path: Path) -> None:
    number = ArraySpec.saved("x", "float32")
    reduced = ReducedSpec.named("x", number, ReduceOp.TOPK, ["a"], ["a"], k=4)
    path, spec = tmp_path / "1.zarr", ArchiveSpec((AxisSpec("a", {"a": range(6)}),), (3,), (), {}, (reduced,))
    create(path, spec)
    values = np.array([1, np.nan, 2, 2, -np.inf, 2], np.float32)
    for first in (3, 0):
        total = Accumulator(spec, reduced, first, 3)
        for place in (2, 0, 1):
            total.add(place, values[first + place])
        write_shard(path, spec, first, {}, [TaskStatus.SAVED] * 3, {"x": total.state()})
    finish(path, {})
    assert np.asarray(Results(path)["x"]).tolist() == [2, 2, 2, 1]
    assert Results(path).xarray()["x_a"].values.tolist() == [2, 3, 5, 0]
