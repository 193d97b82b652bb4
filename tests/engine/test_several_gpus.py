"""A model whose blocks lie on several GPUs gives what it gives in one, and batches go through them side by side."""

from copy import deepcopy

import pytest
import torch
from accelerate import dispatch_model

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.model import wrap
from tests.engine.test_several_devices import modules_beside
from tests.families import FAMILIES, Subject, blocks, family
from tests.graphs import random_task
from tests.oracle import assert_equal, oracle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are not two GPUs here"),
]


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_on_two_gpus_equal_the_oracle(name: str) -> None:
    whole = family(name)
    first, second, third = blocks(whole.loaded)
    places = dict.fromkeys(modules_beside(whole.native, first.rpartition(".")[0]), 0)
    places |= {first: 0, second: 1, third: 1}
    torch.set_float32_matmul_precision("highest")
    subject = Subject(wrap(dispatch_model(deepcopy(whole.native), places)), whole.native)
    assert subject.loaded.layout.packed
    assert len(subject.loaded.devices) == 2
    tasks = [random_task(seed, subject.loaded.sites) for seed in range(100)]
    engine = Engine(subject.loaded, max_batch_tokens=200)
    for outcome in engine.run(tasks):
        assert outcome.error is None, outcome.error
        for save, value in oracle(subject, tasks[outcome.index]).items():
            assert_equal(save, outcome.saves[save], value)
    assert engine.counters.passes > engine.in_flight
