"""Runs of images stacked on a GPU: the same values as one at a time on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.layout import Arrangement
from ndif_batch.engine.model import wrap
from ndif_batch.sweep.task import Task
from tests.engine.test_stacked_against_oracle import patching, reading
from tests.families import Subject
from tests.oracle import assert_equal, oracle
from tests.pictures import PLACES, prompts, random_model

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_what_is_read_and_patched_is_each_runs_own(name: str) -> None:
    model, example = random_model(name)
    native, _ = random_model(name)
    subject = Subject(wrap(model.to("cuda"), example=example), native)
    assert subject.loaded.layout.arrangement is Arrangement.STACKED
    assert subject.loaded.footprint.token > 0
    images, constants = prompts(subject, 3)
    tasks = [reading(subject, image) for image in images]
    tasks += [
        Task(patching(name), {"one": one, "other": images[0], "layer": layer, "place": place})
        for one in images
        for layer in range(3)
        for place in (0, PLACES // 2)
    ]
    outcomes = {outcome.index: outcome for outcome in Engine(subject.loaded).run(tasks, constants=constants)}
    for index, task in enumerate(tasks):
        assert outcomes[index].error is None, outcomes[index].error
        for save, value in oracle(subject, task, constants).items():
            assert_equal(f"task {index}, {save}", outcomes[index].saves[save], value)


def test_images_of_a_model_in_half_precision_are_cast_as_its_weights_are() -> None:
    model, example = random_model("vit")
    subject = Subject(wrap(model.to("cuda", torch.bfloat16), example=example), model)
    images, constants = prompts(subject, 2)
    outcomes = list(Engine(subject.loaded).run([reading(subject, image) for image in images], constants=constants))
    assert all(outcome.error is None for outcome in outcomes)
    assert {value.dtype for outcome in outcomes for value in outcome.saves.values()} == {torch.bfloat16}
