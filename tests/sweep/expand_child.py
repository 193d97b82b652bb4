"""Expands one sweep file into its tasks and tells the CPU seconds and the bytes that it took."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from time import process_time

import numpy as np

from ndif_batch.sweep.load import load_sweep
from ndif_batch.sweep.tiles import tile_shape, tile_tasks

KIB = 1024


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return KIB * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(path: Path) -> None:
    np.unravel_index(0, (1,))
    before, began = peak(), process_time()
    space = load_sweep(path).space
    skipped = space.excluded()
    shards = tile_tasks(space.shape, tile_shape(space.shape, 4))
    last = space.bindings(space.size - 1)
    seconds, grown = process_time() - began, peak() - before
    sys.stdout.write(
        json.dumps(
            {
                "tasks": space.size,
                "excluded": 0 if skipped is None else int(skipped.sum()),
                "in_shards": sum(map(len, shards)),
                "last": last,
                "seconds": seconds,
                "grown": grown,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
