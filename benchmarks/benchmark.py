"""A benchmark from its command line to its report: the contest, the table, the JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import contest
import result
from contenders.protocol import Problem
from contest import Contender, Contest
from options import Options


def compete(contenders: Sequence[Contender], options: Options, work: Mapping[str, Any]) -> Contest:
    """The contest of the contenders that are wanted; the first is always the baseline."""
    problem = Problem(options.subject, work, {}, options.repeats, options.batch_tokens)
    wanted = [c for c in contenders if c is contenders[0] or c.name in options.only]
    found = contest.hold(wanted, problem, options.rounds, options.peers, options.tolerance)
    print(contest.table(found.rows))
    return found


def report(
    name: str,
    contenders: Sequence[Contender],
    options: Options,
    work: Mapping[str, Any],
    described: Mapping[str, Any],
    derived: Callable[[Contest], Mapping[str, Any]] = lambda _: {},
) -> None:
    """Runs the contest and writes what came out; ``described`` is the work in short, ``derived`` what follows."""
    found = compete(contenders, options, work)
    result.write(name, options.subject, described, {**contest.as_json(found), **derived(found)}, options.output)
