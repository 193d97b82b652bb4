"""Gradients within a budget: fewer tasks together, then blocks that are computed again on the way back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine import engine as engine_module
from ndif_batch.engine.batches import WayBack
from ndif_batch.engine.engine import Engine
from ndif_batch.engine.loaded import Footprint
from ndif_batch.engine.memory import footprint_by_shapes
from ndif_batch.engine.passes import run_pass
from ndif_batch.engine.prepare import Preparation
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel, param
from tests.engine.test_gradients import LAYERS, PROMPTS, check, recorded, residual_gradient, run, sweep
from tests.families import Subject, family, random_subject
from tests.graphs import random_task


@contextmanager
def budget(size: int) -> Iterator[None]:
    """Passes may take so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "free_for_passes", lambda model: size)
        yield


@contextmanager
def calls_of(subject: Subject, paths: list[str]) -> Iterator[Counter[str]]:
    """How often modules are called."""
    calls: Counter[str] = Counter()

    def counted(path: str) -> Callable[..., None]:
        return lambda module, args: calls.update([path])

    handles = [subject.loaded.submodule(path).register_forward_pre_hook(counted(path)) for path in paths]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def mlps(subject: Subject) -> list[str]:
    return [path for path in subject.loaded.sites.modules if path.endswith((".1.mlp", ".2.mlp"))]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text", "gptj"])
def test_a_task_that_does_not_fit_alone_is_computed_twice_and_keeps_less(name: str) -> None:
    subject = family(name)

    def record(lm: LanguageModel) -> None:
        inner = lm.blocks[1].mlp.output
        inner[:, 0] *= 2
        lm.blocks[2].mlp.output.sum().save("looked_at_once")
        lm.unembedding.output[0, -1, param("answer")].backward()
        inner.grad.save("gradient")

    graph = recorded(subject, record)
    tasks = [Task(graph, {"prompt": prompt, "answer": n}) for n, prompt in enumerate(PROMPTS)]
    with calls_of(subject, mlps(subject)) as calls:
        check(subject, tasks[:1])
        assert set(calls.values()) == {1}
        with budget(1):
            check(subject, tasks[:1])
    assert calls[mlps(subject)[-1]] == 3
    with budget(1):
        check(subject, tasks)


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "mixtral", "bert"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_random_graphs_within_no_budget_equal_the_oracle(name: str, seed: int) -> None:
    subject = family(name)
    with budget(1):
        check(subject, [random_task(seed, subject.loaded.sites, gradients=True)])


def test_each_of_several_scalars_is_differentiated_through_blocks_that_are_computed_again() -> None:
    subject = family("llama")

    def record(lm: LanguageModel) -> None:
        residual = lm.blocks[param("layer")].residual
        for number in range(2):
            lm.unembedding.output[0, -1, number].backward()
            residual.grad.save(f"gradient{number}")

    graph = recorded(subject, record)
    with budget(1):
        check(subject, [Task(graph, {"prompt": PROMPTS[0], "layer": layer}) for layer in range(LAYERS)])


def test_tasks_with_gradients_go_in_smaller_batches_before_they_are_computed_twice() -> None:
    subject = family("llama")
    tasks = sweep(recorded(subject, residual_gradient))
    one = max(estimated(subject, [task]) for task in tasks)
    for size, twice in ((2 * one, False), (one, False), (one // 2, True)):
        engine = Engine(subject.loaded)
        with budget(size), calls_of(subject, mlps(subject)) as calls:
            outcomes = list(engine.run(tasks))
        assert all(outcome.error is None for outcome in outcomes)
        assert engine.counters.passes > (1 if size > one else len(tasks) // 4)
        assert (sum(calls.values()) > 2 * engine.counters.passes) is twice


def estimated(subject: Subject, tasks: list[Task]) -> int:
    engine = Engine(subject.loaded)
    list(engine.run(tasks))
    return engine.counters.estimated_bytes


def test_the_estimate_counts_the_blocks_between_the_first_gradient_and_the_scalar() -> None:
    subject = family("llama")
    preparation = Preparation(subject.loaded, solo=False, constants={})
    graph = recorded(subject, residual_gradient)
    backs = [preparation.task(0, task).need.back for task in sweep(graph)[:: len(PROMPTS)]]
    length = len(PROMPTS[0])
    assert [back.token_blocks for back in backs] == [2 * length, length, 0]
    assert {(back.tokens, back.positions) for back in backs} == {(length, 1)}
    plain = random_task(3, subject.loaded.sites)
    assert preparation.task(0, plain).need.back == WayBack()


def test_what_is_kept_is_counted_per_block_and_checkpoints_keep_what_goes_in() -> None:
    footprint = Footprint(token=10, position=7, kept=100, entering=3)
    back = WayBack(token_blocks=8, tokens=2, positions=1, noted=5)
    assert back.bytes(footprint, checkpointed=False) == 8 * 100 + 5 + 20
    assert back.bytes(footprint, checkpointed=True) == 8 * 3 + 2 * 100 + 5 + 20


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "bert"])
def test_what_a_block_keeps_is_measured_and_shapes_come_near_it(name: str) -> None:
    loaded = family(name).loaded
    assert loaded.footprint.kept > loaded.footprint.entering > 0
    assert 1 / 3 < footprint_by_shapes(loaded).kept / loaded.footprint.kept < 3


def test_what_autograd_keeps_is_what_was_estimated() -> None:
    """Of a model that is large enough for its blocks to be most of it, at other lengths than was measured with."""
    subject = random_subject("llama", num_hidden_layers=6, hidden_size=64, intermediate_size=128, num_attention_heads=4)
    graph = recorded(subject, residual_gradient)
    task = Task(graph, {"prompt": tuple(n % 32 + 3 for n in range(100)), "layer": 0, "answer": 3, "distractor": 5})
    need = Preparation(subject.loaded, solo=False, constants={}).task(0, task).need
    estimate = need.back.token_blocks * subject.loaded.footprint.kept + need.back.noted
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in subject.loaded.module.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run(subject, [task])
    assert 0.7 * estimate < sum(kept.values()) < 1.3 * estimate


def test_a_pass_that_runs_out_of_memory_is_tried_again_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = family("llama")
    tasks = sweep(recorded(subject, residual_gradient))[:2]
    started: list[bool] = []

    def scarce(*args: Any, checkpointed: bool) -> Any:
        started.append(checkpointed)
        if not checkpointed:
            raise torch.OutOfMemoryError("nothing is left")
        return run_pass(*args, checkpointed=checkpointed)

    monkeypatch.setattr(engine_module, "run_pass", scarce)
    check(subject, tasks)
    assert started == [False, False, True, False, True]
