"""Writes the archive's section of the performance page from the reports in ``benchmarks/results``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Report = Mapping[str, Any]

LAYOUTS = {
    "archive": "this archive, synced",
    "safetensors": "a safetensors file a task",
    "zarr_groups": "a Zarr group a task",
}


def _ms(way: str) -> Callable[[Report], str]:
    return lambda one: f"{1000 * one['median_seconds'][way]:.1f} ms"


ROWS: Sequence[tuple[str, Callable[[Report], str]]] = (
    ("MiB, and compressed", lambda one: f"{one['bytes'] / 2**20:.0f}, {one['compressed_bytes'] / 2**20:.1f}"),
    ("plain write and fsync of the compressed bytes", _ms("plain")),
    ("the same bytes as a shard: written, synced, renamed", _ms("files")),
    ("that is of plain", lambda one: f"{one['files_share_of_plain']:.0%}"),
    ("compressing alone", _ms("encode")),
    ("compressing and writing together", _ms("write_shard")),
    ("that is of plain", lambda one: f"{one['write_shard_share_of_plain']:.0%}"),
)
"""What is told of each dtype's tiles."""


def archive_section(results: Path = ROOT / "benchmarks" / "results") -> str:
    """Every report of the archive's benchmark, machine by machine."""
    paths = sorted(results.glob("archive-*.json"))
    if not paths:
        return "Not measured yet."
    return "\n".join(line for path in paths for line in _machine(json.loads(path.read_text()), path)).strip()


def _machine(report: Report, path: Path) -> Iterator[str]:
    machine, versions = report["machine"], report["versions"]
    changed = " with changes" if report["changed"] else ""
    yield f"### On {machine['cpu']}, {machine['cores']} cores"
    yield ""
    yield (
        f"`{report['command']}`, {report['date'][:10]}, commit {report['commit'][:7]}{changed}"
        f" ([report](../benchmarks/results/{path.name}); zarr {versions['zarr']}, numcodecs {versions['numcodecs']})."
    )
    yield from ("", *_bandwidth(report["bandwidth"]), "", *_overlap(report["overlap"]), "", *_layouts(report), "")
    yield from (f"![files, writing and reading of the three layouts](pictures/{report['picture']})", "")


def _bandwidth(found: Report) -> Iterator[str]:
    yield "| a tile of random residuals | " + " | ".join(found) + " |"
    yield "|---" * (1 + len(found)) + "|"
    for name, cell in ROWS:
        yield f"| {name} | " + " | ".join(cell(one) for one in found.values()) + " |"


def _overlap(found: Report) -> Iterator[str]:
    yield (
        f"An engine that gives {found['shard_bytes'] / 2**20:.0f} MiB every {1000 * found['pass_seconds']:.0f} ms"
        f" ({found['bytes_per_second'] / 2**20:.0f} MiB/s) waited for its writer {found['waited_share']:.2%} of the"
        f" time, {found['longest_wait_ms']:.2f} ms at the longest in {found['passes']} passes."
    )


def _layouts(report: Report) -> Iterator[str]:
    yield "| | tasks | files | MiB on disk | write, ms a task | open, ms | one task, ms | all tasks, s |"
    yield "|---|---|---|---|---|---|---|---|"
    rows = [(LAYOUTS[name], one) for name, one in report["layouts"].items()]
    rows.append((f"{LAYOUTS['archive']}: one number a task", report["million"]))
    for name, one in rows:
        figures = [
            f"{one['tasks']:,}",
            f"{one['files']:,}",
            f"{one['bytes'] / 2**20:.1f}",
            f"{1000 * one['write_seconds'] / one['tasks']:.3g}",
            f"{one['open']['median_ms']:.2f}",
            f"{one['one_task']['median_ms']:.2f}",
            f"{one['all_tasks_seconds']:.3g}",
        ]
        yield f"| {name} | {' | '.join(figures)} |"
