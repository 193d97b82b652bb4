"""Finds what is damaged in an archive, and which tasks that touches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import zarr

from ndif_batch.archive.grid import Grid
from ndif_batch.archive.group import GROUP, MANIFEST, archive_files, file_digest
from ndif_batch.archive.layout import shard_key
from ndif_batch.archive.spec import STATUS
from ndif_batch.archive.store import open_array

MISSING = "missing"
CHANGED = "changed since the job was finished"
UNLISTED = "not in the manifest"
CHECKSUM = "does not match its checksum"
UNREADABLE = "not readable"
DAMAGE = (ValueError, RuntimeError, KeyError, TypeError, IndexError, OSError)
"""What Zarr's decoders raise for damaged bytes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One file, relative to the archive, what is wrong with it, and the ids of the tasks whose results it touches."""

    path: str
    what: str
    tasks: range

    def __str__(self) -> str:
        which = "task" if len(self.tasks) == 1 else "tasks"
        span = str(self.tasks.start) if len(self.tasks) == 1 else f"{self.tasks.start} to {self.tasks.stop - 1}"
        return f"{self.path}: {self.what} ({which} {span})"


def find_problems(path: Path, grid: Grid, coordinates: Collection[str], tiled: Mapping[str, Grid]) -> list[Problem]:
    """Compare every file with the manifest; before there is one, check each shard's CRC32C and that none is missing.

    ``coordinates`` are the names of the arrays that belong to axes, ``tiled`` of those that tasks write, with what the
    tiles of the ``grid`` of tasks cover there.
    """
    finished = (path / MANIFEST).exists()
    found = _by_manifest(path) if finished else _by_checksum(path, grid, coordinates, tiled)
    return [Problem(name, what, _tasks_of(name, grid, tiled)) for name, what in found]


def _tasks_of(name: str, grid: Grid, tiled: Collection[str]) -> range:
    array, _, key = name.rpartition("/")
    start, *numbers = key.split(".")
    index = tuple(int(number) for number in numbers[: len(grid.shape)] if number.isdigit())
    if start != "c" or array not in tiled or not grid.has(index):
        return range(grid.size)
    return grid.tasks(index)


def _by_manifest(path: Path) -> Iterator[tuple[str, str]]:
    lines = (path / MANIFEST).read_text(errors="replace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = set(archive_files(path))
    for name in sorted(listed.keys() | there):
        if name not in there:
            yield name, MISSING
        elif name not in listed:
            yield name, UNLISTED
        elif file_digest(path / name) != listed[name]:
            yield name, CHANGED


def _by_checksum(
    path: Path, grid: Grid, coordinates: Collection[str], tiled: Mapping[str, Grid]
) -> Iterator[tuple[str, str]]:
    written = {index for index in grid.indices() if (path / STATUS / shard_key(index, len(index))).exists()}
    for name in sorted([*coordinates, *tiled]):
        try:
            array = open_array(path, name)
            ndim, is_empty = array.ndim, 0 in array.shape
        except DAMAGE:
            yield f"{name}/{GROUP}", UNREADABLE
            continue
        if name in coordinates:
            yield from _damage(path, array, shard_key((0,), 1), (), expected=True)
        elif not is_empty:
            for index in grid.indices():
                key, tile = shard_key(index, ndim), tiled[name].region(index)
                yield from _damage(path, array, key, tile, expected=index in written)


def _damage(
    path: Path, array: zarr.Array[Any], key: str, tile: tuple[slice, ...], *, expected: bool
) -> Iterator[tuple[str, str]]:
    name = f"{array.basename}/{key}"
    file = path / name
    if not file.exists():
        if expected:
            yield name, MISSING
    elif not file.stat().st_size:  # which Zarr reads as nothing but fill values
        yield name, CHECKSUM
    else:
        try:
            for part in _parts(array, tile):
                _ = array[part]
        except DAMAGE:
            yield name, CHECKSUM


def _parts(array: zarr.Array[Any], tile: tuple[slice, ...]) -> Iterator[tuple[slice, ...]]:
    """A tile chunk by chunk, so that little of a large one is in memory at a time."""
    whole = (*tile, *(slice(0, length) for length in array.shape[len(tile) :]))
    return product(
        *(
            [slice(at, min(at + step, span.stop)) for at in range(span.start, span.stop, step)]
            for span, step in zip(whole, array.chunks, strict=True)
        )
    )
