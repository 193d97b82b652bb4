"""Writes the engine's section of the performance page from the reports in ``benchmarks/results``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Report = Mapping[str, Any]


def engine_section(results: Path = ROOT / "benchmarks" / "results") -> str:
    """Every report of a benchmark of the engine, benchmark by benchmark."""
    lines: list[str] = []
    for name, (title, meaning, body) in BENCHMARKS.items():
        lines += [f"### {title}", "", meaning, ""]
        paths = sorted(results.glob(f"{name}-*.json"))
        if not paths:
            lines += ["Not measured yet.", ""]
        for path in paths:
            report = json.loads(path.read_text())
            lines += [*_heading(report, path), "", *body(report), ""]
    return "\n".join(lines).strip()


def _heading(report: Report, path: Path) -> Iterator[str]:
    model, machine = report["model"], report["machine"]
    where = machine.get("gpu") or f"{machine['cpu']}, {model['threads']} cores"
    if "parallel" in model:
        how = "layers one after another" if model["parallel"] == "layers" else "each weight split"
        where = f"{model['devices']} × {where}, {how}"  # noqa: RUF001
    work = ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in report["work"].items())
    changed = " with changes" if report["changed"] else ""
    yield f"#### {model['shape']}, {model['dtype']}, on {where}"
    yield ""
    yield (
        f"{model['layers']} layers, width {model['width']}, {model['weights']} weights; {work}. Measured on"
        f" {report['date'][:10]}, commit {report['commit'][:7]}{changed}, with `{report['command']}`"
        f" ([report](../benchmarks/results/{path.name}){_versions(report)})."
    )


def _plain(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else f"{value}"


def _versions(report: Report) -> str:
    found: dict[str, str] = dict(report.get("versions", {}))
    for row in report.get("results", ()):
        found |= row["versions"]
    return "".join(f"; {name} {version}" for name, version in sorted(found.items()))


def _contest(report: Report) -> Iterator[str]:
    """Medians with the lowest and highest, the ratio to the first row, the deviation from its values."""
    yield "| | seconds | lowest to highest | ratio | deviation |"
    yield "|---|---|---|---|---|"
    for row in report["results"]:
        spread = f"{row['low']:.3g} to {row['high']:.3g}"
        yield f"| {row['label']} | {row['median']:.3g} | {spread} | {row['ratio']:.2f} | {row['deviation']:.1e} |"
    yield from ("", *_placed(report), *_skipped(report))


def _generation(report: Report) -> Iterator[str]:
    """The same, case by case: each contender with a layer saved at every step, and without."""
    yield "| | | seconds | lowest to highest | ratio | deviation |"
    yield "|---|---|---|---|---|---|"
    for row in sorted(report["results"], key=lambda row: row["case"]):
        spread = f"{row['low']:.3g} to {row['high']:.3g}"
        numbers = f"{row['median']:.3g} | {spread} | {row['ratio']:.2f} | {row['deviation']:.1e}"
        yield f"| {row['case']} | {row['label']} | {numbers} |"
    yield from ("", *_skipped(report))


def _placed(report: Report) -> Iterator[str]:
    """Of a model on several devices: how long it took to be there, what it takes, how busy each device was."""
    for row in report["results"]:
        if found := row.get("placed"):
            busy = " and ".join(f"{share:.0%}" for share in found["busy"])
            memory = " and ".join(f"{used:.0f}" for used in found["memory_gib"])
            yield (
                f"{row['label']}: made and measured in {found['load_seconds']} s, {memory} GiB in use on the devices,"
                f" which had a kernel at work for {busy} of the time."
            )
            yield ""


def _overhead(report: Report) -> Iterator[str]:
    """What a task and a node cost, and what nnsight's own parts cost."""
    costs, labels = report["microseconds"], {row["contender"]: row["label"] for row in report["results"]}
    deviations = {row["contender"]: row["deviation"] for row in report["results"]}
    yield f"The forward pass takes {costs['forward']:.1f} µs a task of the pack; it is taken off the times below."
    yield ""
    yield "| | µs a task | µs a node | deviation |"
    yield "|---|---|---|---|"
    for name, cost in costs["by_contender"].items():
        yield f"| {labels[name]} | {cost['task']:.1f} | {cost['node']:.2f} | {deviations[name]:.1e} |"
    yield ""
    parts = report["nnsight_microseconds"]
    if parts is not None:
        each = ", ".join(f"{parts[name]:.0f} µs {word}" for name, word in _PARTS.items())
        yield f"nnsight asks for {each}."
    yield from _skipped(report)


_PARTS = {"trace": "a trace", "access": "an access", "invoke": "an invoke"}


def _scaling(report: Report) -> Iterator[str]:
    """The lines' slopes, how far the points are off, and the picture."""
    yield "| against | from | to | ms each | furthest from a straight line |"
    yield "|---|---|---|---|---|"
    for name, series in report["series"].items():
        sizes = series["sizes"]
        yield (f"| {name} | {sizes[0]} | {sizes[-1]} | {series['slope'] * 1e3:.3g} | {series['deviation']:.0%} |")
    yield from ("", f"![time against tasks, tokens and layers](pictures/{report['picture']})")


def _busy(report: Report) -> Iterator[str]:
    """How long the device was at work, and how long it waited."""
    yield "| job | tasks | seconds | device at work | nvidia-smi | µs a task without work |"
    yield "|---|---|---|---|---|---|"
    for job in report["jobs"]:
        gpu = "" if job["gpu"] is None else f"{job['gpu']:.1%}"
        numbers = f"{job['tasks']:,} | {job['seconds']:.1f} | {job['device']:.1%} | {gpu} | {job['idle']:.1f}"
        yield f"| {job['job']} | {numbers} |"


def _skipped(report: Report) -> Iterator[str]:
    if report["skipped"]:
        yield f"Not measured: {'; '.join(report['skipped'].values())}."


BENCHMARKS: Mapping[str, tuple[str, str, Callable[[Report], Iterator[str]]]] = {
    "patching": (
        "Patching",
        "The residual of every layer and position of one prompt is put into another; a logit difference is measured.",
        _contest,
    ),
    "extraction": ("Extraction", "The residual of the middle layer at the last token of many prompts.", _contest),
    "generation": (
        "Generation",
        "Tokens that follow prompts of mixed lengths, greedy, with the residual of the middle layer saved at every"
        " step, and without.",
        _generation,
    ),
    "mixed_users": (
        "Mixed users",
        "Requests that differ in everything: each reads one layer and overwrites neurons in another.",
        _contest,
    ),
    "overhead": (
        "Overhead",
        "What a task and a node cost beyond the forward pass, on a model so small that little else is left.",
        _overhead,
    ),
    "scaling": (
        "Scaling",
        "The engine's time against the number of tasks that share nothing, of tokens and of layers.",
        _scaling,
    ),
    "busy": (
        "A worker's device",
        "The share of a long job's time in which the device is at work: by its own clock a batch lies on it, by"
        " nvidia-smi, from the second second on, a kernel runs.",
        _busy,
    ),
}
"""In the order of the page: title, what is done, how its results are shown."""
