"""Times 64 different requests, as many users make: raw hooks, nnsight, this project."""

from __future__ import annotations

import random
import sys
from typing import Any

import benchmark
from contenders.protocol import Subject
from contenders.shapes import SHAPES
from contest import Contender, peer
from options import parser, prompt, read_options

CONTENDERS = (
    Contender("raw_hooks", "raw hooks, one request at a time", "mixed_users.raw_hooks"),
    peer("nnsight", "nnsight_one", "nnsight, one trace a request", "mixed_users.nnsight_one", stop=False),
    peer("nnsight", "nnsight_stop", "nnsight, one trace a request, stop()", "mixed_users.nnsight_one", stop=True),
    peer("nnsight", "nnsight_32", "nnsight, 32 invokes a trace, sorted", "mixed_users.nnsight_many", invokes=32),
    Contender("engine", "ndif_batch, engine alone", "mixed_users.engine"),
)


def main() -> int:
    """Runs what the command line asks for; ends with 1 if values differ from those of raw hooks."""
    arguments = parser(__doc__, CONTENDERS)
    arguments.add_argument("--requests", type=int, default=64)
    arguments.add_argument("--tokens", type=int, nargs=2, default=(10, 40), help="shortest and longest prompt")
    given = arguments.parse_args()
    options = read_options(given)
    source = random.Random(0)
    requests = [request(source, options.subject, given.tokens) for _ in range(given.requests)]
    described = {"requests": given.requests, "shortest": given.tokens[0], "longest": given.tokens[1]}
    benchmark.report("mixed_users", CONTENDERS, options, {"requests": requests}, described)
    return 0


def request(source: random.Random, subject: Subject, tokens: tuple[int, int]) -> dict[str, Any]:
    """A request that no other is likely to be like; what it reads and writes may lie in either order."""
    first = source.randrange(SHAPES[subject.shape].mlp - 1)
    return {
        "prompt": prompt(source, subject.shape, source.randint(*tokens)),
        "read": source.randrange(subject.layers),
        "write": source.randrange(subject.layers),
        "first": first,
        "stop": min(first + source.randint(1, 32), SHAPES[subject.shape].mlp),
        "value": source.choice([0.0, 1.0, -3.0]),
    }


if __name__ == "__main__":
    sys.exit(main())
