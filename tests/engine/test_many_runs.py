"""Graphs of many runs: values go between prompts, positions and layers, forwards and back, as the oracle has it."""

from __future__ import annotations

import pytest

from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph
from ndif_batch.sweep.task import Task
from tests.families import family
from tests.oracle import assert_equal, oracle
from tests.recording import recorder

PROMPTS = [(1, 2, 3), (4, 5, 6, 7), (8, 9), (3, 1, 4, 1, 5), (2, 6), (5, 3, 5)]


def chain(back: bool) -> Graph:
    """Each run takes from the one before: another position, and a layer further down or, ``back``, further up."""
    lm = recorder(family("llama"))
    with lm.session() as s:
        carried = None
        for number, prompt in enumerate(PROMPTS):
            with lm.trace(prompt):
                first, last = lm.model.layers[0].output, lm.model.layers[1].output
                taken, given = (first, last) if back else (last, first)
                if carried is not None:
                    taken[0, number % len(prompt)] = carried
                carried = given[0, -1] * 0.5
                lm.lm_head.output[0, -1].save(f"logits{number}")
    return s.graph


@pytest.mark.parametrize("back", [False, True])
def test_six_runs_in_a_chain_are_what_the_oracle_says(back: bool) -> None:
    subject = family("llama")
    task = Task(chain(back))
    (outcome,) = Engine(subject.loaded).run([task])
    assert outcome.error is None, outcome.error
    truth = oracle(subject, task)
    assert len(truth) == len(PROMPTS)
    for save, value in truth.items():
        assert_equal(save, outcome.saves[save], value)
