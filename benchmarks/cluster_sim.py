"""Simulates a day of a shared cluster with the policy and the autoscaler themselves, against two simpler ways.

The work, its arrival and the speed of a pilot are drawn; what is decided is decided by ``ndif_batch.scheduling``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import machine
from cluster.pictures import draw
from cluster.pilots import PilotCluster, fair, first_come
from cluster.record import Record
from cluster.submissions import SubmissionCluster
from cluster.workload import Job, Workload

from ndif_batch.scheduling import Limits

Way = Callable[[Sequence[Job], Limits], Record]

WAYS: Mapping[str, Way] = {
    "pilots, fair share": lambda jobs, limits: PilotCluster(jobs, limits, fair).run(),
    "pilots, first come first served": lambda jobs, limits: PilotCluster(jobs, limits, first_come).run(),
    "one Slurm job a submission": lambda jobs, limits: SubmissionCluster(jobs, limits.gpus).run(),
}


def main() -> int:
    """Runs the day in each way, prints the table, writes JSON and pictures."""
    options = read_options()
    workload = Workload(options.gpus, options.users, options.jobs, load=options.load, seed=options.seed)
    limits = Limits(gpus=workload.gpus)
    jobs = workload.draw()
    records, results = {}, {}
    for name, way in WAYS.items():
        began = perf_counter()
        records[name] = way(jobs, limits)
        results[name] = {**records[name].summary(), "simulated_in_seconds": perf_counter() - began}
        print(f"{name}: {results[name]['simulated_in_seconds']:.0f} s", file=sys.stderr)
    print(table(results))
    write(workload, limits, jobs, results, options.output)
    draw(records, options.pictures)
    return 0


def read_options() -> argparse.Namespace:
    """The command line."""
    usual = Workload()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpus", type=int, default=usual.gpus)
    parser.add_argument("--users", type=int, default=usual.users)
    parser.add_argument("--jobs", type=int, default=usual.jobs)
    parser.add_argument("--load", type=float, default=usual.load, help="work asked for, as a part of the GPUs' day")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--output", type=Path, default=machine.ROOT / "benchmarks/results/cluster_sim.json")
    parser.add_argument("--pictures", type=Path, default=machine.ROOT / "docs/pictures", help="folder for the PNGs")
    return parser.parse_args()


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as a Markdown table."""
    rows: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "GPUs at work, of the day": lambda one: f"{one['utilisation']:.1%}",
        "GPUs held, of the day": lambda one: f"{one['held']:.1%}",
        "wait of a job, mean": lambda one: seconds(one["wait_seconds"]["mean"]),
        "wait of a job, median": lambda one: seconds(one["wait_seconds"]["p50"]),
        "median wait of a user, 90 %": lambda one: seconds(one["user_median_wait_seconds"]["p90"]),
        "median wait of a user, 99 %": lambda one: seconds(one["user_median_wait_seconds"]["p99"]),
        "the same, lighter half, 99 %": lambda one: seconds(one["lighter_half_of_users_median_wait_seconds"]["p99"]),
        "turnaround of a job, mean": lambda one: seconds(one["turnaround_seconds"]["mean"]),
        "turnaround of a job, 99 %": lambda one: seconds(one["turnaround_seconds"]["p99"]),
        "Jain's index": lambda one: "-" if one["jain"] is None else f"{one['jain']:.2f}",
        "loads of a model": lambda one: f"{one['loads']:,}",
        "GPU-hours spent on loads": lambda one: f"{one['load_gpu_hours']:,.0f}",
        "all work done after": lambda one: f"{one['all_done_hours']:.1f} h",
    }
    lines = ["| | " + " | ".join(results) + " |", "|---" * (1 + len(results)) + "|"]
    lines += [f"| {name} | " + " | ".join(cell(one) for one in results.values()) + " |" for name, cell in rows.items()]
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Seconds, minutes or hours, whichever reads well."""
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def write(workload: Workload, limits: Limits, jobs: Sequence[Job], results: Mapping[str, Any], output: Path) -> None:
    """The report as JSON, with machine, commit, date and what was drawn."""
    work = sorted(job.seconds for job in jobs)
    report = {
        **machine.provenance(),
        "machine": machine.describe("cpu"),
        "workload": asdict(workload),
        "job_seconds_on_one_pilot": {f"p{p}": work[len(work) * p // 100] for p in (10, 50, 90, 99)},
        "users_who_submitted": len({job.user for job in jobs}),
        "limits": asdict(limits),
        "results": results,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {output}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
