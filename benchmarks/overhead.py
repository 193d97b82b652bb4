"""Times what a task and a node cost beyond the forward pass, on a model so small that little else is left."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import benchmark
import contest
import numpy as np
from contenders.overhead.chain import INVOKES, TIMES, case
from contenders.protocol import Problem
from contest import Contender, Contest, peer
from options import Options, parser, prompt, read_options

PLAIN = Contender("plain", "PyTorch, prompts as rows", "overhead.plain")
CONTENDERS = (
    PLAIN,
    peer("nnsight", "nnsight_one", "nnsight, one trace a task, stop()", "overhead.nnsight_one"),
    peer("nnsight", "nnsight_many", "nnsight, an invoke a task", "overhead.nnsight_many"),
    Contender("engine_each", "ndif_batch, a graph a task", "overhead.engine", arguments={"alike": False}),
    Contender("engine", "ndif_batch, one graph", "overhead.engine", arguments={"alike": True}),
)
COSTS = peer("nnsight", "nnsight_costs", "nnsight's costs", "overhead.nnsight_costs")
BLOCK_ACCESSES = 2
"""Accesses of each block in the case ``accesses``."""


def main() -> int:
    """Runs what the command line asks for; ends with 1 if values differ from those of PyTorch alone."""
    arguments = parser(__doc__, CONTENDERS, shape="llama-tiny")
    arguments.set_defaults(repeats=7)
    arguments.add_argument("--tasks", type=int, default=256)
    arguments.add_argument("--tokens", type=int, default=8, help="of each prompt")
    arguments.add_argument("--nodes", type=int, nargs="+", default=[4, 16, 64], help="lengths of the chains")
    given = arguments.parse_args()
    options = read_options(given)
    source = random.Random(0)
    work = {
        "prompts": [prompt(source, options.subject.shape, given.tokens) for _ in range(given.tasks)],
        "scales": [source.uniform(0.9, 1.1) for _ in range(given.tasks)],
        "nodes": [0, *given.nodes],
    }
    described = {"tasks": given.tasks, "tokens": given.tokens, "nodes": work["nodes"]}
    benchmark.report("overhead", CONTENDERS, options, work, described, partial(derive, options, work))
    return 0


def derive(options: Options, work: Mapping[str, Any], found: Contest) -> dict[str, Any]:
    """Microseconds by contender, the forward pass that was taken off them, and what nnsight's parts cost."""
    tasks, lengths = len(work["prompts"]), work["nodes"]
    forward = median_of(found, PLAIN.name, case(0)) / tasks * 1e6
    names = list(dict.fromkeys(row.contender for row in found.rows))
    prices = {name: price(found, name, tasks, forward, lengths) for name in names}
    print(f"\nforward pass {forward:.1f} µs a task, taken off\n{'':20}{'µs a task':>12}{'µs a node':>12}")
    for name, cost in prices.items():
        print(f"{name:20}{cost['task']:12.1f}{cost['node']:12.2f}")
    return {
        "microseconds": {"forward": forward, "by_contender": prices},
        "nnsight_microseconds": nnsight_costs(options, work),
    }


def price(found: Contest, name: str, tasks: int, forward: float, lengths: Sequence[int]) -> dict[str, float]:
    """Slope and intercept of the line through a contender's times, per task; what each length came to."""
    spent = [median_of(found, name, case(nodes)) / tasks * 1e6 - forward for nodes in lengths]
    node, task = np.polyfit(lengths, spent, 1)
    return {"task": float(task), "node": float(node), **dict(zip(map(case, lengths), spent, strict=True))}


def median_of(found: Contest, name: str, which: str) -> float:
    """A contender's median of a case, in seconds."""
    return next(row.median for row in found.rows if (row.contender, row.case) == (name, which))


def nnsight_costs(options: Options, work: Mapping[str, Any]) -> dict[str, float] | None:
    """Microseconds of a trace with one access, of a further access, and of an invoke; ``None`` without nnsight."""
    if contest.missing(COSTS, options.peers):
        return None
    problem = Problem(options.subject, work, {}, options.repeats)
    measured = contest.run(COSTS, problem, options.peers)
    spent = {name: median(seconds) / TIMES * 1e6 for name, seconds in measured.seconds.items()}
    accesses = BLOCK_ACCESSES * options.subject.layers
    costs = {
        "forward": spent["forward"],
        "trace": spent["trace"] - spent["forward"],
        "access": (spent["accesses"] - spent["trace"]) / accesses,
        "invoke": (spent["invokes"] - spent["rows"]) / INVOKES,
    }
    print("nnsight: " + ", ".join(f"{name} {cost:.0f} µs" for name, cost in costs.items()))
    return costs


if __name__ == "__main__":
    sys.exit(main())
