"""Times the engine against the number of tasks, of layers and of tokens, and says how straight the lines are."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import contest
import machine
import numpy as np
import result
from contenders.protocol import Problem, Subject
from contenders.scaling.ablation import case
from contest import Contender, Row
from options import Options, parser, read_options

CONTENDERS = (
    Contender("raw_hooks", "raw hooks, values of the first 8 tasks", "scaling.raw_hooks"),
    Contender("engine", "ndif_batch, engine alone", "scaling.engine"),
)


@dataclass(frozen=True)
class Series:
    """Seconds against one size, and the line with the smallest squared relative distance from them.

    ``deviation`` is the largest distance of a point from the line, as a share of the line's value there.
    """

    sizes: list[int]
    seconds: list[float]
    low: list[float]
    high: list[float]
    intercept: float
    slope: float
    deviation: float


def main() -> int:
    """Measures the three series, or draws those of an earlier report."""
    arguments = command_line()
    given = arguments.parse_args()
    path = given.redraw
    if path is None:
        options = read_options(given)
        series = measure(options, given)
        described = {name: getattr(given, name) for name in ("tasks", "tokens", "layer_counts", "fixed")}
        tolerance = contest.allowed(options.subject, options.tolerance)
        found = {"tolerance": tolerance, "picture": picture_name(options), "series": series}
        path = result.write("scaling", options.subject, described, found, options.output)
    from pictures import draw_scaling

    report = json.loads(path.read_text())
    draw_scaling(report, given.pictures / report["picture"])
    return 0


def picture_name(options: Options) -> str:
    """The file of the picture: one a machine and shape."""
    subject = options.subject
    return f"scaling-{subject.shape}-{machine.slug(machine.describe(subject.device))}.png"


def command_line() -> argparse.ArgumentParser:
    """The shared options, and the sizes; two of the three stay as ``--fixed`` says while the third grows."""
    arguments = parser(__doc__, CONTENDERS, shape="llama-small")
    arguments.set_defaults(repeats=3)
    arguments.add_argument("--tasks", type=int, nargs="+", default=[2**power for power in range(13)])
    arguments.add_argument("--tokens", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256, 512])
    arguments.add_argument("--layer-counts", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    arguments.add_argument("--fixed", type=int, nargs=2, default=[64, 16], help="tasks and tokens of the other series")
    arguments.add_argument("--redraw", type=Path, help="only draw this report")
    arguments.add_argument("--pictures", type=Path, default=machine.ROOT / "docs/pictures", help="folder for the PNG")
    return arguments


def measure(options: Options, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every series: its points and its line."""
    tasks, tokens = given.fixed
    many = [(count, tokens) for count in given.tasks]
    long = [(tasks, count) for count in given.tokens]
    rows = points(options, options.subject, [*many, *long])
    by_tasks, by_tokens = rows[: len(many)], rows[len(many) :]
    by_layers = [
        row
        for count in given.layer_counts
        for row in points(options, replace(options.subject, layers=count), [(tasks, tokens)])
    ]
    found = {
        "tasks": line(given.tasks, by_tasks),
        "tokens": line(given.tokens, by_tokens),
        "layers": line(given.layer_counts, by_layers),
    }
    for name, series in found.items():
        print(f"{name}: {series.slope * 1e3:.3f} ms each, at most {series.deviation:.0%} from a straight line")
    return {name: asdict(series) for name, series in found.items()}


def points(options: Options, subject: Subject, cases: Sequence[tuple[int, int]]) -> list[Row]:
    """The engine's rows, in the order of the cases, once their values are those of raw hooks."""
    problem = Problem(subject, {"cases": cases}, {}, options.repeats, options.batch_tokens)
    found = contest.hold(CONTENDERS, problem, options.rounds, options.peers, options.tolerance)
    rows = {row.case: row for row in found.rows if row.contender == "engine"}
    return [rows[case(*sizes)] for sizes in cases]


def line(sizes: Sequence[int], rows: Iterable[Row]) -> Series:
    """The straight line through the medians; each point weighs as its relative error."""
    given = list(rows)
    seconds = np.array([row.median for row in given])
    terms = np.stack([np.ones(len(sizes)), np.array(sizes, dtype=float)], axis=1)
    intercept, slope = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(sizes)), rcond=None)[0]
    fitted = terms @ np.array([intercept, slope])
    return Series(
        list(sizes),
        seconds.tolist(),
        [row.low for row in given],
        [row.high for row in given],
        float(intercept),
        float(slope),
        float(np.abs(seconds / fitted - 1).max()),
    )


if __name__ == "__main__":
    sys.exit(main())
