"""No operation reaches files, network, processes or attributes of Python, whatever it is given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ndif_batch.engine.engine import Outcome
from ndif_batch.engine.kernels import KERNELS
from ndif_batch.graph.nodes import Graph, Node, NodeRef, Run
from ndif_batch.graph.operations import OPERATIONS
from ndif_batch.graph.signatures import ArgType
from ndif_batch.sweep.task import Task
from tests.engine import sandbox_child
from tests.engine.test_engine import LAST, OUTSIDE, WELL, WRONG_SHAPE, at, graph, outcomes, save
from tests.families import family

ROOT = Path(__file__).parents[2]


def test_every_operation_with_right_and_hostile_arguments_does_nothing_but_compute() -> None:
    """In a process of its own, since an audit hook cannot be taken away."""
    command = [sys.executable, sandbox_child.__file__]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["seen"] == []
    assert told["operations"] == sorted(KERNELS)
    assert told["attacks"] > 20_000
    assert 0 < told["survived"] < told["attacks"] / 10
    assert told["accepted"] == [f"{place} __class__" for place in ("name", "param", "run")], (
        "names, of nothing but itself"
    )


def test_no_place_of_an_operation_takes_an_object_or_a_function() -> None:
    for operation in OPERATIONS.values():
        for parameter in operation.parameters:
            assert not any(map(parameter.accepts, (object(), open, Path("/"), b"bytes", {}, [], type))), operation.name
            is_text = parameter.type in (ArgType.STR, ArgType.DTYPE)
            assert is_text or not parameter.accepts("__class__"), f"{operation.name}: {parameter}"


def test_the_text_of_an_error_is_the_same_whoever_else_is_in_the_pass() -> None:
    own = family("llama")
    wild = Task(Graph({}, (Run("r", (3, 4)),), (*LAST[:2], Node("matmul", (NodeRef(1), NodeRef(0))), save(2))))
    bad = [OUTSIDE, WRONG_SHAPE, wild, Task(graph(*LAST[:1], at(0, 0, 3, 10_000), save(1)))]
    alone = [error_of(outcomes(own, [task])[0]) for task in bad]
    others = [Task(Graph({}, (Run("secret", tuple(range(5, 5 + long))),), LAST)) for long in (1, 7, 15)]
    mixed = [task for pair in zip(bad, (*others, WELL), strict=True) for task in pair]
    together = outcomes(own, mixed)[::2]
    assert [error_of(outcome) for outcome in together] == alone


def error_of(outcome: Outcome) -> tuple[str, int | None]:
    assert outcome.error is not None
    return outcome.error.message, outcome.error.node
