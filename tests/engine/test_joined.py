"""What transformers computes in many kernels goes in few on a GPU, where that gives the same, and nowhere else."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from ndif_batch.engine.norms import is_close, join_norms, of_kind
from ndif_batch.engine.rotary import NAME, join_rotations
from tests.families import FAMILIES, family

PROMPT = torch.arange(3, 12)[None]


def test_a_model_on_a_cpu_stays_as_it_is() -> None:
    model: Any = deepcopy(family("llama").native)
    kinds = [type(module) for module in model.modules()]
    join_norms(model)
    join_rotations(model)
    assert [type(module) for module in model.modules()] == kinds


def test_another_forward_is_of_one_module_alone_and_no_attribute_of_it() -> None:
    changed, other = nn.Linear(2, 2), nn.Linear(2, 2)
    of_kind(changed, lambda self, value: value * self.in_features)
    assert torch.equal(changed(torch.ones(2)), torch.full((2,), 2.0))
    assert "forward" not in changed.__dict__
    assert isinstance(changed, nn.Linear)
    assert type(other) is nn.Linear


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_few_elements_rounded_to_their_neighbours_are_close_and_all_are_not(dtype: torch.dtype) -> None:
    wanted = torch.linspace(1, 2, 4096).to(dtype)
    above = torch.nextafter(wanted.float(), torch.tensor(4.0)) if dtype is torch.float32 else wanted * (1 + 2**-7)
    few = torch.where(torch.arange(4096) == 7, above.to(dtype), wanted)
    assert is_close(few, wanted)
    assert is_close(above.to(dtype), wanted) == (dtype is torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", FAMILIES)
def test_on_a_gpu_a_model_gives_what_it_gave(name: str, dtype: torch.dtype) -> None:
    native: Any = family(name).native
    plain = deepcopy(native).to("cuda", dtype)
    joined = deepcopy(plain)
    join_norms(joined)
    join_rotations(joined)
    with torch.no_grad():
        found, wanted = (model(PROMPT.cuda(), use_cache=False).logits for model in (joined, plain))
    assert (
        torch.dist(found.float(), wanted.float()) <= (1e-5 if dtype is torch.float32 else 2e-2) * wanted.float().norm()
    )


@pytest.mark.gpu
def test_norms_and_rotations_of_llama_are_joined_on_a_gpu() -> None:
    native: Any = family("llama").native
    model = deepcopy(native).to("cuda", torch.bfloat16)
    before = type(model.model.norm).forward, type(model.model.layers[0].self_attn).forward
    join_norms(model)
    join_rotations(model)
    attention: Any = type(model.model.layers[0].self_attn).forward
    assert type(model.model.norm).forward is not before[0]
    assert attention.__globals__[NAME] is not before[1].__globals__[NAME]
