"""Runs of equal length as rows of a batch: values there and back, and how many passes tasks take."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.rows import in_rows, on_one_axis
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.graph.sites import SiteTensor
from ndif_batch.sweep.task import Task
from tests.families import family
from tests.oracle import assert_equal, oracle

CLEAN, OTHER, LONGER = (5, 9, 2, 7), (8, 3, 3, 1), (4, 4, 1, 6, 2, 9)
PARAMS = {"prompt": ParamType.PROMPT, "other": ParamType.PROMPT, "position": ParamType.INT}


@given(sizes=st.permutations([None, 1, 3]), rows=st.integers(1, 4), length=st.integers(1, 5))
def test_rows_come_together_token_by_token_and_go_back_as_they_were(
    sizes: Sequence[int | None], rows: int, length: int
) -> None:
    shape = SiteTensor(tuple(sizes), "float32")
    runs = [torch.randn(shape.at(length)) for _ in range(rows)]
    batch = torch.cat(runs, dim=sizes.index(1))
    flat = on_one_axis((batch, None), (shape, None), rows * length, rows)
    assert torch.equal(flat[0], torch.cat(runs, dim=sizes.index(None)))
    back = in_rows(flat, (batch, None), (shape, None), rows * length, rows)
    assert torch.equal(back[0], batch)
    assert back[1] is None


def test_rows_that_are_one_axis_already_stay_so() -> None:
    experts = torch.randn(3 * 5, 4)
    shape = SiteTensor((None, 4), "float32")
    assert on_one_axis(experts, shape, 15, 3) is experts
    assert in_rows(experts, experts, shape, 15, 3) is experts


def transplant() -> Graph:
    """Block 1's output at a position, from one run into another; the logits at the end."""
    nodes = (
        Node("read", run=0, site="transformer.h.1.output"),
        Node("getitem", (NodeRef(0), (0,))),
        Node("getitem", (NodeRef(1), (SliceArg(), ParamRef("position")))),
        Node("write", (NodeRef(2),), run=1, site="transformer.h.1.output", index=(0, SliceArg(), ParamRef("position"))),
        Node("read", run=1, site="lm_head.output"),
        Node("getitem", (NodeRef(4), (0, -1))),
        Node("save", (NodeRef(5),), name="logits"),
    )
    return Graph(PARAMS, (Run("clean", ParamRef("prompt")), Run("patched", ParamRef("other"))), nodes)


@pytest.mark.parametrize("name", ["gptj", "bloom"])
def test_tasks_of_one_length_take_one_pass_a_stage(name: str) -> None:
    subject = family(name)
    graph = transplant()
    prompts = [(CLEAN, OTHER), (OTHER, CLEAN)]
    tasks = [
        Task(graph, {"prompt": clean, "other": other, "position": position})
        for clean, other in prompts
        for position in range(len(CLEAN))
    ]
    engine = Engine(subject.loaded)
    check(engine, tasks, name)
    assert engine.counters.passes == 2
    assert engine.counters.tokens == (len(prompts) + len(tasks)) * len(CLEAN)


def test_other_lengths_take_passes_of_their_own() -> None:
    subject = family("gptj")
    graph = transplant()
    pairs = [(CLEAN, OTHER), (LONGER, CLEAN), (OTHER, CLEAN), (LONGER, OTHER)]
    tasks = [Task(graph, {"prompt": clean, "other": other, "position": 1}) for clean, other in pairs]
    engine = Engine(subject.loaded)
    check(engine, tasks, "gptj")
    assert engine.counters.passes == 3  # two lengths of the clean run, one of the patched


def check(engine: Engine, tasks: Sequence[Task], name: str) -> None:
    outcomes = {outcome.index: outcome for outcome in engine.run(tasks)}
    for index, task in enumerate(tasks):
        assert outcomes[index].error is None, outcomes[index].error
        assert_equal(name, outcomes[index].saves["logits"], oracle(family(name), task)["logits"])
