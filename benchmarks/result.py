"""The report of a benchmark of the engine as JSON: machine, commit, date, command, model, work, results."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import machine
from contenders.protocol import Subject
from contenders.shapes import SHAPES
from options import command


def write(
    benchmark: str, subject: Subject, work: Mapping[str, Any], found: Mapping[str, Any], path: Path | None
) -> Path:
    """Writes the report and says where. ``work`` is a short description, ``found`` the benchmark's own results."""
    described = machine.describe(subject.device)
    several = "" if subject.parallel is None else f"-{subject.parallel}-{subject.devices}"
    name = f"{benchmark}-{subject.shape}{several}-{machine.slug(described)}.json"
    path = path or machine.ROOT / "benchmarks" / "results" / name
    report = {
        "benchmark": benchmark,
        **machine.provenance(),
        "command": command(),
        "machine": described,
        "model": model(subject),
        "work": dict(work),
        **found,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{described}, commit {report['commit'][:12]}, written: {path}", file=sys.stderr)
    return path


def model(subject: Subject) -> dict[str, Any]:
    """What was measured, without this machine's paths."""
    shape = SHAPES[subject.shape]
    return {
        "shape": subject.shape,
        "family": shape.family,
        "layers": subject.layers,
        "width": shape.width,
        "dtype": subject.dtype,
        "threads": subject.threads,
        "weights": "random" if subject.weights is None else "trained",
    } | ({} if subject.parallel is None else {"parallel": subject.parallel, "devices": subject.devices})
