"""Times one patching sweep (every layer, every position) with raw hooks, nnsight and this project, on equal terms.

Every contender is its own process, with the same weights, prompts and threads; it loads, warms up on one layer, and
is timed on the whole sweep. Rounds take turns, so that a slow minute of the machine falls on all. The values must be
equal, or there is no result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import machine
from contenders.protocol import Measured, Problem, Values, parse
from random_model import random_problem

TOLERANCE = 1e-4
"""Largest allowed difference from raw hooks, as a share of their largest value; float32."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A module of ``contenders``; a ``peer`` runs in the peers' virtual environment."""

    name: str
    label: str
    peer: bool = False


BASELINE = Contender("raw_hooks", "raw hooks, one run at a time")
CONTENDERS = (
    BASELINE,
    Contender("nnsight_one", "nnsight, one trace a run", peer=True),
    Contender("nnsight_many", "nnsight, 32 invokes a trace", peer=True),
    Contender("engine", "ndif_batch, engine alone"),
    Contender("whole", "ndif_batch, queue to archive"),
)


def main() -> int:
    """Runs what the command line asks for; 1 if a contender's values differ from those of raw hooks."""
    options = read_options()
    contenders = [c for c in CONTENDERS if c is BASELINE or c.name in options.only]
    with TemporaryDirectory() as folder:
        if options.random:
            problem = random_problem(Path(folder), options.device, options.threads)
        else:
            problem = ioi_problem(options.device, options.threads)
        problem = replace(problem, layers=min(problem.layers, options.layers or problem.layers))
        rounds = compete(contenders, problem, options.rounds, options.peers)
    results = summarise(contenders, rounds)
    print(table(results))
    wrong = [row["label"] for row in results if not row["deviation"] <= TOLERANCE]
    if wrong:
        print(f"values differ from raw hooks by more than {TOLERANCE:g}: {', '.join(wrong)}", file=sys.stderr)
        return 1
    write(problem, results, options.output)
    return 0


def read_options() -> argparse.Namespace:
    """The command line."""
    names = [contender.name for contender in CONTENDERS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="contenders beside raw hooks")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contender runs; medians are shown")
    parser.add_argument("--layers", type=int, help="only the first layers, for a quick try")
    parser.add_argument("--random", action="store_true", help="random weights in place of SmolLM2: nothing is fetched")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument(
        "--peers",
        type=lambda path: Path(path).absolute(),
        default=machine.ROOT / ".venv-peers/bin/python",
        help="Python that has nnsight",
    )
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/patching-<machine>.json")
    return parser.parse_args()


def ioi_problem(device: str, threads: int) -> Problem:
    """The sweep of ``configs/sweeps/ioi_patching.yaml`` on SmolLM2 from the model cache."""
    import yaml

    from ndif_batch.config import load_settings
    from ndif_batch.models import demo

    info = demo.add(load_settings().model_cache)
    tokenizer = info.tokenizer
    assert tokenizer is not None
    given = yaml.safe_load((machine.ROOT / "configs/sweeps/ioi_patching.yaml").read_text())["parameters"]
    return Problem(
        weights=str(info.weights),
        entry=str(info.directory),
        layers=range(*given["layer"]["range"]).stop,
        clean=list(tokenizer.encode(given["clean"])),
        corrupted=list(tokenizer.encode(given["corrupted"])),
        answer=tokenizer.token(given["answer"]),
        distractor=tokenizer.token(given["distractor"]),
        device=device,
        threads=threads,
    )


def compete(
    contenders: Sequence[Contender], problem: Problem, rounds: int, peers: Path | str
) -> dict[Contender, list[Measured]]:
    """Each contender's measurements, one a round."""
    found: dict[Contender, list[Measured]] = {contender: [] for contender in contenders}
    for number in range(1, rounds + 1):
        for contender in contenders:
            measured = run(contender, problem, peers)
            found[contender].append(measured)
            print(f"round {number}  {contender.label:30} {measured.seconds:8.2f} s", file=sys.stderr)
    return found


def run(contender: Contender, problem: Problem, peers: Path | str) -> Measured:
    """One process of a contender; its error output passes through if it fails."""
    python = str(peers) if contender.peer else sys.executable
    command = [python, "-m", f"contenders.{contender.name}", problem.to_argument()]
    environment = os.environ | {"PYTHONPATH": str(machine.ROOT), "OMP_NUM_THREADS": str(problem.threads)}
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{contender.label} failed:\n{done.stderr}")
    return parse(done.stdout)


def summarise(contenders: Sequence[Contender], rounds: Mapping[Contender, list[Measured]]) -> list[dict[str, Any]]:
    """A row a contender: seconds of each round, their median, the ratio to raw hooks, the largest deviation."""
    expected = rounds[BASELINE][0].values
    base = median(measured.seconds for measured in rounds[BASELINE])
    rows = []
    for contender in contenders:
        seconds = [measured.seconds for measured in rounds[contender]]
        rows.append(
            {
                "contender": contender.name,
                "label": contender.label,
                "seconds": seconds,
                "median": median(seconds),
                "ratio": base / median(seconds),
                "deviation": max(deviation(expected, measured.values) for measured in rounds[contender]),
                "versions": rounds[contender][0].versions,
            }
        )
    return rows


def deviation(expected: Values, found: Values) -> float:
    """Largest difference of two tables, as a share of the largest expected value; infinite if their shapes differ."""
    if [len(row) for row in expected] != [len(row) for row in found]:
        return float("inf")
    pairs = [(e, f) for one, other in zip(expected, found, strict=True) for e, f in zip(one, other, strict=True)]
    differences = [abs(e - f) for e, f in pairs]
    if any(difference != difference for difference in differences):
        return float("inf")
    return max(differences) / max(abs(e) for e, _ in pairs)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows for a terminal."""
    lines = [f"{'':32}{'median':>10}{'ratio':>8}{'deviation':>12}"]
    for row in rows:
        lines.append(f"{row['label']:32}{row['median']:8.2f} s{row['ratio']:8.2f}{row['deviation']:12.1e}")
    return "\n".join(lines)


def write(problem: Problem, results: Sequence[Mapping[str, Any]], output: Path | None) -> None:
    """The report as JSON, with machine, commit and date."""
    described = machine.describe(problem.device)
    path = output or machine.ROOT / "benchmarks" / "results" / f"patching-{machine.slug(described)}.json"
    report = {
        **machine.provenance(),
        "machine": described,
        "threads": problem.threads,
        "model": Path(problem.entry).name,
        "runs": problem.layers * len(problem.positions),
        "layers": problem.layers,
        "tokens": len(problem.corrupted),
        "dtype": "float32",
        "tolerance": TOLERANCE,
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
