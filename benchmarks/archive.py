"""Measures the archive: bandwidth to the disk, whether the engine waits for it, and reading one task of a million."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine
import numcodecs
import xarray
import zarr
from options import command
from storing import bandwidth, overlap, pictures, reading

PICTURES = machine.ROOT / "docs" / "pictures"


def main() -> int:
    """Measures everything, prints the table, writes JSON and a picture."""
    options = read_options()
    results: dict[str, Any] = {}
    with TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        parts: Mapping[str, Callable[[], Mapping[str, Any]]] = {
            "bandwidth": lambda: bandwidth.measure(folder, options.tiles),
            "overlap": lambda: overlap.measure(folder, options.passes, options.pass_seconds),
            "layouts": lambda: reading.compare(folder, options.tasks, options.group_tasks),
            "million": lambda: reading.million(folder, options.million),
        }
        for name, part in parts.items():
            results[name] = part()
            print(f"{name}: measured", file=sys.stderr)
    print("\n".join(lines(results)))
    picture = f"{options.output.stem}.png"
    pictures.draw_layouts(results["layouts"], options.pictures / picture)
    report = {
        "benchmark": "archive",
        **machine.provenance(),
        "command": command(),
        "machine": machine.describe("cpu"),
        "versions": {"zarr": zarr.__version__, "xarray": xarray.__version__, "numcodecs": numcodecs.__version__},
        **results,
        "picture": picture,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a folder of the disk to measure; default: the temporary one")
    parser.add_argument("--tiles", type=int, default=30, help="of 32 MiB, for the bandwidth of each dtype")
    parser.add_argument("--passes", type=int, default=40, help="of the engine that gives a shard of 16 MiB each")
    parser.add_argument("--pass-seconds", type=float, default=0.1)
    parser.add_argument("--tasks", type=int, default=10_000, help="in the archive and in safetensors files")
    parser.add_argument("--group-tasks", type=int, default=2_000, help="in Zarr groups, which are slow to write")
    parser.add_argument("--million", type=int, default=1_000_000, help="tasks of the large archive")
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    slug = machine.slug(machine.describe("cpu"))
    parser.add_argument("--output", type=Path, default=machine.ROOT / f"benchmarks/results/archive-{slug}.json")
    return parser.parse_args()


def lines(results: Mapping[str, Any]) -> list[str]:
    """The figures in short."""
    found = [
        f"{dtype}: files {one['files_share_of_plain']:.0%} of a plain write and fsync, with encoding"
        f" {one['write_shard_share_of_plain']:.0%}"
        for dtype, one in results["bandwidth"].items()
    ]
    found.append(f"the engine waits {results['overlap']['waited_share']:.2%} of the time")
    for name, one in (*results["layouts"].items(), ("million", results["million"])):
        found.append(
            f"{name}: {one['tasks']:,} tasks, {one['files']:,} files, written in {one['write_seconds']:.2f} s,"
            f" opened in {one['open']['median_ms']:.2f} ms, one task in {one['one_task']['median_ms']:.2f} ms"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
