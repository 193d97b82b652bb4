"""The trial that decides how runs of a model go together."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.layout import Arrangement
from ndif_batch.engine.model import wrap
from tests.families import FAMILIES, Subject, family
from tests.graphs import random_task
from tests.oracle import assert_equal, oracle


@pytest.mark.parametrize("name", FAMILIES)
def test_families_that_attend_through_the_interface_are_packed(name: str) -> None:
    layout = family(name).loaded.layout
    assert layout.packed
    assert not layout.alone
    assert str(layout) == "packed"


def test_tensors_that_rows_share_or_that_are_no_tokens_run_alone() -> None:
    layout = family("gpt_neo").loaded.layout
    assert {("transformer.wpe.output", ()), ("transformer.h.0.output", (1,))} <= layout.alone
    assert ("transformer.h.0.output", (0,)) not in layout.alone


def changed(hooks: Sequence[Any]) -> Subject:
    """A Llama with hooks on its first block's attention, which belong to it from now on."""
    model = deepcopy(family("llama").native)
    attention = model.get_submodule("model.layers.0.self_attn")
    attention.register_forward_pre_hook(hooks[0], with_kwargs=True)
    for hook in hooks[1:]:
        attention.register_forward_hook(hook)
    native = deepcopy(model)
    return Subject(wrap(model), native)


def warmer(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args, {**kwargs, "temperature": 2.0}


def mixer(module: nn.Module, args: tuple[Any, ...], output: tuple[torch.Tensor, Any]) -> Any:
    return output[0] + (output[0].shape[0] - 1), output[1]


@pytest.mark.parametrize(
    ("hooks", "arrangement", "reason"),
    [
        ([warmer], Arrangement.ROWS, "packed attention does not know ['temperature']"),
        (
            [warmer, mixer],
            Arrangement.ALONE,
            "packed attention does not know ['temperature']; in rows: they differ from runs alone at lm_head.output",
        ),
    ],
)
def test_a_keyword_that_attention_does_not_know_is_named_and_another_layout_taken(
    hooks: Sequence[Any], arrangement: Arrangement, reason: str
) -> None:
    subject = changed(hooks)
    layout = subject.loaded.layout
    assert (layout.arrangement, layout.reason) == (arrangement, reason)
    assert str(layout) == f"{arrangement}: {reason}"
    tasks = [random_task(seed, subject.loaded.sites) for seed in range(8)]
    for outcome in Engine(subject.loaded).run(tasks):
        assert outcome.error is None
        for save, value in oracle(subject, tasks[outcome.index]).items():
            assert_equal(save, outcome.saves[save], value)
