"""Runs contenders in turn, each in a process of its own, and compares their values before it tells their times."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import machine
import numpy as np
from contenders.protocol import Measured, Problem, Subject, parse

TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest allowed difference from the baseline, as a share of its largest value.

In bfloat16 (8 bits) the same model gives other values when its batch has another size: the table shows how far peers
that batch are off, beside the engine.
"""


@dataclass(frozen=True)
class Contender:
    """``module`` of ``contenders`` runs if the libraries it ``needs`` are there; a ``peer``, in the peers' Python."""

    name: str
    label: str
    module: str
    needs: tuple[str, ...] = ()
    peer: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


def peer(library: str, name: str, label: str, module: str, **arguments: Any) -> Contender:
    """A contender that another library is."""
    return Contender(name, label, module, (library,), peer=True, arguments=arguments)


@dataclass(frozen=True)
class Row:
    """What a contender's case came to. ``ratio`` is to the baseline's median, as ``deviation`` is to its values.

    ``placed`` says of a model on several devices how long it took to load, and of each the memory in use and the busy
    share.
    """

    contender: str
    label: str
    case: str
    seconds: list[float]
    median: float
    low: float
    high: float
    ratio: float
    deviation: float
    versions: Mapping[str, str]
    placed: Mapping[str, Any]


@dataclass(frozen=True)
class Contest:
    """The rows of those who ran, the first contender's first; ``skipped`` says what the others miss."""

    rows: Sequence[Row]
    skipped: Mapping[str, str]
    tolerance: float

    def wrong(self) -> list[str]:
        """Who deviates from the baseline too far."""
        return [f"{row.label} {row.case}".strip() for row in self.rows if not row.deviation <= self.tolerance]


def hold(
    contenders: Sequence[Contender],
    problem: Problem,
    rounds: int,
    peers: Path,
    tolerance: float | None,
) -> Contest:
    """Every contender ``rounds`` times, in turns, so that a slow minute of the machine falls on all of them.

    The first contender is the baseline. ``SystemExit`` if one fails or if values differ.
    """
    skipped = {c.name: f"{c.label}: {miss} is not installed" for c in contenders if (miss := missing(c, peers))}
    for reason in skipped.values():
        print(f"skipped  {reason}", file=sys.stderr)
    running = [contender for contender in contenders if contender.name not in skipped]
    found: dict[str, list[Measured]] = {contender.name: [] for contender in running}
    for number in range(1, rounds + 1):
        for contender in running:
            measured = run(contender, replace(problem, arguments=contender.arguments), peers)
            found[contender.name].append(measured)
            seconds = sum(median(each) for each in measured.seconds.values())
            print(f"round {number}  {contender.label:34} {seconds:9.3f} s", file=sys.stderr)
    contest = Contest(summarise(running, found), skipped, allowed(problem.subject, tolerance))
    if contest.wrong():
        raise SystemExit(f"values differ by more than {contest.tolerance:g}: {'; '.join(contest.wrong())}")
    return contest


def allowed(subject: Subject, tolerance: float | None) -> float:
    """The tolerance that was asked for, else that of the dtype."""
    return TOLERANCES[subject.dtype] if tolerance is None else tolerance


def python(contender: Contender, peers: Path) -> tuple[str, str]:
    """The interpreter of a contender, and the folders where it looks for modules."""
    folders = [str(machine.ROOT / "benchmarks"), str(machine.ROOT)]
    if not contender.peer:
        return sys.executable, os.pathsep.join(folders)
    if peers.is_dir():
        return sys.executable, os.pathsep.join([*folders, str(peers)])
    return str(peers), os.pathsep.join(folders)


def missing(contender: Contender, peers: Path) -> str | None:
    """The first library that a contender needs and has not."""
    executable, path = python(contender, peers)
    if not Path(executable).exists():
        return executable
    look = "import sys; from importlib.util import find_spec as f; print(*[n for n in sys.argv[1:] if f(n) is None])"
    environment = os.environ | {"PYTHONPATH": path}
    command = [executable, "-c", look, *contender.needs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return next(iter(done.stdout.split()), None)


def run(contender: Contender, problem: Problem, peers: Path) -> Measured:
    """One process of a contender; its error output passes through if it fails."""
    executable, path = python(contender, peers)
    threads = str(problem.subject.threads)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    with TemporaryDirectory() as folder:
        problem.write(Path(folder))
        command = [executable, "-m", f"contenders.{contender.module}", folder]
        with others(command, environment, problem.subject) as first:
            done = subprocess.run(command, env=first, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{contender.label} failed:\n{done.stdout}\n{done.stderr}")
        return parse(Path(folder))


@contextmanager
def others(command: Sequence[str], environment: Mapping[str, str], subject: Subject) -> Iterator[Mapping[str, str]]:
    """The processes that share a model with the first one, whose environment is given."""
    if subject.processes == 1:
        yield environment
        return
    from ndif_batch.engine.processes import environments

    first, *rest = [{**environment, **own} for own in environments(subject.processes)]
    running = [subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL) for own in rest]
    try:
        yield first
    finally:
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def summarise(contenders: Sequence[Contender], found: Mapping[str, Sequence[Measured]]) -> list[Row]:
    """A row a contender and case."""
    base = found[contenders[0].name]
    rows = []
    for contender in contenders:
        rounds = found[contender.name]
        for case in rounds[0].seconds:
            seconds = [second for measured in rounds for second in measured.seconds[case]]
            usual = [second for measured in base for second in measured.seconds[case]]
            expected = base[0].values[case]
            rows.append(
                Row(
                    contender=contender.name,
                    label=contender.label,
                    case=case,
                    seconds=seconds,
                    median=median(seconds),
                    low=min(seconds),
                    high=max(seconds),
                    ratio=median(usual) / median(seconds),
                    deviation=max(deviation(expected, measured.values[case]) for measured in rounds),
                    versions=rounds[0].versions,
                    placed=rounds[-1].placed,
                )
            )
    return rows


def deviation(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    """Largest difference as a share of the largest expected value; infinite for other shapes and for NaN."""
    if expected.shape != found.shape:
        return float("inf")
    difference = float(np.abs(expected - found).max() / np.abs(expected).max())
    return difference if difference == difference else float("inf")


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    lines = [f"{'':44}{'median':>11}{'lowest':>10}{'highest':>10}{'ratio':>8}{'deviation':>11}"]
    for row in rows:
        times = f"{row.median:9.3f} s{row.low:10.3f}{row.high:10.3f}"
        lines.append(f"{f'{row.label} {row.case}':44}{times}{row.ratio:8.2f}{row.deviation:11.1e}")
        if row.placed:
            lines.append(
                f"    loaded in {row.placed['load_seconds']} s, {row.placed['memory_gib']} GiB in use,"
                f" busy {row.placed['busy']}"
            )
    return "\n".join(lines)


def as_json(contest: Contest) -> dict[str, Any]:
    """The contest's part of a report."""
    rows = [asdict(row) for row in contest.rows]
    return {"tolerance": contest.tolerance, "results": rows, "skipped": dict(contest.skipped)}
