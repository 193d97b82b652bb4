"""How large an archive will be, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ndif_batch.archive.layout import layouts, reduced_layouts
from ndif_batch.archive.spec import ArchiveSpec
from ndif_batch.graph.abstract import ITEM_BYTES


@dataclass(frozen=True, slots=True)
class ArchiveSize:
    """``bytes`` of all values before compression (an upper bound on the disk's), and ``files`` when complete."""

    bytes: int
    files: int


def archive_size(spec: ArchiveSpec) -> ArchiveSize:
    """The size of a complete archive; coordinates count as eight bytes a label."""
    arrays = layouts(spec).values()
    reduced = [layout for one in spec.reduced for layout in reduced_layouts(one, spec.grid, spec.dims).values()]
    labels = [(len(axis), len(axis.coordinates)) for axis in spec.axes]
    values = sum(prod(layout.shape) * ITEM_BYTES[layout.dtype] for layout in (*arrays, *reduced))
    shards = sum(spec.grid.tiles for layout in arrays if prod(layout.shape))
    shards += sum(prod(map(_ceil_div, layout.shape, layout.shard)) for layout in reduced)
    coordinates = sum(count for _, count in labels)
    group_and_manifest = 2
    return ArchiveSize(
        bytes=values + sum(8 * length * count for length, count in labels),
        files=group_and_manifest + len(arrays) + len(reduced) + shards + 2 * coordinates,
    )


def _ceil_div(whole: int, part: int) -> int:
    """How many parts cover the whole."""
    return -(-whole // part)
