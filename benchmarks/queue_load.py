"""Fills a queue of each database with waiting shards of many users and times submission, leases and commits.

Workers have no model: they lease and commit as fast as they can, and then many of them at a steady pace.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import machine
import sqlalchemy
from load.filling import Filled, fill, submit_seconds
from load.workers import Timed, busy, in_processes, paced
from sqlalchemy import text

from ndif_batch.queue import schema
from ndif_batch.queue.database import Database
from tests.queue import postgres

SETTINGS = ("max_connections=300", "shared_buffers=512MB", "max_wal_size=4GB")
BATCH, PACED_BATCH = 64, 8
"""Shards of one lease."""

PROCESSES = 4


def main() -> int:
    """Measures each database, prints the table, writes JSON."""
    options = read_options()
    results = {}
    for name in options.only:
        with DATABASES[name]() as url:
            results[name] = measure(url, options)
        print(f"{name}: measured", file=sys.stderr)
    print(table(results))
    report = {
        **machine.provenance(),
        "machine": machine.describe("cpu"),
        "sqlalchemy": sqlalchemy.__version__,
        "settings": SETTINGS,
        "options": {name: value for name, value in vars(options).items() if name != "output"},
        "results": results,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=200, help="that lease once a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", nargs="+", choices=list(DATABASES), default=list(DATABASES))
    slug = machine.slug(machine.describe("cpu"))
    parser.add_argument("--output", type=Path, default=machine.ROOT / f"benchmarks/results/queue-{slug}.json")
    return parser.parse_args()


def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fills the queue at ``url``, then every figure of it."""
    schema.upgrade(url)
    filled = fill(url, options.users, options.shards)
    version = settle(url)
    big = submit_seconds(url, 1_000_000)
    hard = in_processes(PROCESSES, busy, url, BATCH, options.seconds)
    each = max(1, options.workers // PROCESSES)
    steady = in_processes(PROCESSES, paced, url, PACED_BATCH, options.seconds, each)
    return {
        "version": version,
        "submit": {"shards": filled.shards, "shards_per_second": rate(filled), "million_tasks_seconds": big},
        "busy": {"workers": PROCESSES, **figures(hard, options.seconds)},
        "paced": {"workers": PROCESSES * each, **figures(steady, options.seconds)},
    }


def settle(url: str) -> str:
    """What PostgreSQL does by itself within a minute; the version of the database."""
    with closing(Database(url)) as database:
        if url.startswith("sqlite"):
            with database.read() as tx:
                return "SQLite " + str(tx.connection.scalar(text("SELECT sqlite_version()")))
        with database._writer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
            return "PostgreSQL " + str(connection.scalar(text("SHOW server_version")))


def rate(filled: Filled) -> float:
    """Shards submitted in a second."""
    return filled.shards / filled.seconds


def figures(timed: Timed, seconds: float) -> dict[str, Any]:
    """Shards a second, and the milliseconds of leases and commits."""
    return {"shards_per_second": timed.shards / seconds} | {
        name: quantiles(values) for name, values in (("lease", timed.leases), ("commit", timed.commits))
    }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """How many there are, their median and what a hundredth exceeds, in milliseconds."""
    return {"count": len(seconds), "p50_ms": quantile(seconds, 0.5), "p99_ms": quantile(seconds, 0.99)}


def quantile(seconds: Sequence[float], part: float) -> float:
    """The value below which ``part`` of them lie, in milliseconds."""
    values = sorted(seconds)
    return 1000 * values[min(len(values) - 1, int(part * len(values)))]


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| | " + " | ".join(str(one["version"]) for one in results.values()) + " |",
        "|---" * (1 + len(results)) + "|",
    ]
    rows: dict[str, Any] = {
        "a job of 1,000,000 tasks submitted in": lambda one: f"{one['submit']['million_tasks_seconds']:.2f} s",
        "shards submitted a second": lambda one: f"{one['submit']['shards_per_second']:,.0f}",
        "busy workers: shards a second": lambda one: f"{one['busy']['shards_per_second']:,.0f}",
        "busy workers: lease p50, p99": lambda one: milliseconds(one["busy"]["lease"]),
        "busy workers: commit p50, p99": lambda one: milliseconds(one["busy"]["commit"]),
        "paced workers: shards a second": lambda one: f"{one['paced']['shards_per_second']:,.0f}",
        "paced workers: lease p50, p99": lambda one: milliseconds(one["paced"]["lease"]),
        "paced workers: commit p50, p99": lambda one: milliseconds(one["paced"]["commit"]),
    }
    lines += [f"| {name} | " + " | ".join(cell(one) for one in results.values()) + " |" for name, cell in rows.items()]
    return "\n".join(lines)


def milliseconds(one: Mapping[str, float]) -> str:
    """The two quantiles."""
    return f"{one['p50_ms']:.1f}, {one['p99_ms']:.1f} ms"


@contextmanager
def sqlite() -> Iterator[str]:
    """A file of its own."""
    with TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/queue.db"


DATABASES: Mapping[str, Any] = {"sqlite": sqlite, "postgresql": partial(postgres.server, *SETTINGS)}

if __name__ == "__main__":
    sys.exit(main())
