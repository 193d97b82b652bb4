"""Gradients of many tasks together are those of each alone, and whoever runs beside them does not notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.engine import Engine, LayoutChoice, Outcome
from ndif_batch.graph.nodes import Graph, Node, NodeRef, Run, SliceArg
from ndif_batch.sweep.task import Task
from ndif_batch.trace import LanguageModel, param
from tests.families import FAMILIES, Subject, family
from tests.graphs import random_task
from tests.oracle import assert_equal, oracle
from tests.recording import recorder

DECODERS = ("gpt2", "llama", "qwen3", "gemma3_text", "gpt_neox", "opt", "mixtral", "gpt_oss")
PROMPTS = ((5, 6, 7, 8), (9, 3), (5, 6, 7, 8), (11, 12, 13))
LAYERS = 3


def run(subject: Subject, tasks: Sequence[Task], layout: LayoutChoice = "auto") -> list[Outcome]:
    return sorted(Engine(subject.loaded).run(tasks, layout=layout), key=lambda outcome: outcome.index)


def check(subject: Subject, tasks: Sequence[Task], layout: LayoutChoice = "auto") -> None:
    for outcome, task in zip(run(subject, tasks, layout), tasks, strict=True):
        assert outcome.error is None, outcome.error
        check_saves(subject, outcome, task)


def check_saves(subject: Subject, outcome: Outcome, task: Task) -> None:
    truth = oracle(subject, task)
    assert outcome.saves.keys() == truth.keys()
    for name, value in truth.items():
        assert_equal(f"{task.bindings}, {name}", outcome.saves[name], value)


def recorded(subject: Subject, record: Callable[[LanguageModel], None]) -> Graph:
    """What ``record`` does in an invoke of the prompt."""
    lm = recorder(subject)
    with lm.trace(param("prompt")) as t:
        record(lm)
    return t.graph


def residual_gradient(lm: LanguageModel) -> None:
    residual = lm.blocks[param("layer")].residual
    logits = lm.unembedding.output[0, -1]
    difference = logits[param("answer")] - logits[param("distractor")]
    difference.backward()
    difference.save("difference")
    residual.grad.save("gradient")


def sweep(graph: Graph, **more: Any) -> list[Task]:
    return [
        Task(graph, {"prompt": prompt, "layer": layer, "answer": 3 + n, "distractor": 50, **more})
        for layer in range(LAYERS)
        for n, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("name", DECODERS)
def test_gradients_at_every_block_are_those_of_each_task_alone(name: str) -> None:
    """Two of the prompts are equal, so that what two tasks had in common would show in both gradients."""
    subject = family(name)
    tasks = sweep(recorded(subject, residual_gradient))
    check(subject, tasks)
    engine = Engine(subject.loaded)
    assert all(outcome.saves["gradient"].abs().max() > 1e-3 for outcome in engine.run(tasks))
    assert engine.counters.passes == 1


@pytest.mark.parametrize(("name", "layout"), [("bert", "auto"), ("gptj", "auto"), ("mamba", "auto"), ("llama", "solo")])
def test_gradients_in_other_layouts_and_without_causality_equal_the_oracle(name: str, layout: LayoutChoice) -> None:
    subject = family(name)
    block = {"bert": "bert.encoder.layer", "gptj": "transformer.h", "mamba": "backbone.layers"}.get(
        name, "model.layers"
    )

    def record(lm: LanguageModel) -> None:
        module: Any = lm
        for part in (*block.split("."),):
            module = getattr(module, part)
        residual = module[param("layer")].residual
        lm.unembedding.output[0, 1, param("answer")].backward()
        residual.grad.save("gradient")

    tasks = [
        Task(task.graph, {name: value for name, value in task.bindings.items() if name != "distractor"})
        for task in sweep(recorded(subject, record))
    ]
    check(subject, tasks, layout)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_a_gradient_goes_the_way_of_its_site_alone(name: str) -> None:
    """Inputs of several modules may be one tensor: by each there is a gradient of its own, as a write is of its own."""
    subject = family(name)
    module = "transformer.h.1" if name == "gpt2" else "model.layers.1"
    inside = [path for path, site in subject.loaded.sites.sites.items() if path.startswith(f"{module}.")]
    usable = [path for path in inside if subject.loaded.sites.sites[path].refused is None]

    def record(lm: LanguageModel) -> None:
        found = []
        for path in usable:
            site: Any = lm
            for part in path.split("."):
                site = site[int(part)] if part.isdigit() else getattr(site, part)
            found.append(site if isinstance(subject.loaded.sites.sites[path].value, tuple) is False else site[0])
        lm.unembedding.output[0, -1, param("answer")].backward()
        for number, site in enumerate(found):
            site.grad.save(f"gradient{number}")

    graph = recorded(subject, record)
    assert len(graph.saves()) > 8
    check(subject, [Task(graph, {"prompt": prompt, "answer": 7}) for prompt in PROMPTS])


def test_neighbours_without_gradients_have_the_same_bits_as_without_them() -> None:
    subject = family("llama")
    plain = [random_task(seed, subject.loaded.sites) for seed in range(24)]
    gradients = [random_task(seed, subject.loaded.sites, gradients=True) for seed in range(24)]
    alone = run(subject, plain)
    mixed = run(subject, [task for pair in zip(plain, gradients, strict=True) for task in pair])
    for before, after in zip(alone, mixed[::2], strict=True):
        assert before.error is after.error is None
        for name, value in before.saves.items():
            assert torch.equal(value.nan_to_num(), after.saves[name].nan_to_num())
    for outcome, task in zip(mixed[1::2], gradients, strict=True):
        check_saves(subject, outcome, task)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text", "gpt_oss"])
def test_gradients_go_through_what_was_written(name: str) -> None:
    """From the clean run's residual through a transplant into the corrupted run, past a later write at one position."""
    subject = family(name)
    lm = recorder(subject)
    with lm.trace() as t:
        with t.invoke(param("clean")):
            clean = lm.blocks[param("layer")].residual
        with t.invoke(param("corrupted")):
            here = lm.blocks[param("layer")].residual
            here[:, param("position")] = 2 * clean[:, param("position")]
            lm.blocks[2].residual[:, 0] = 0.5
            logits = lm.unembedding.output[0, -1]
            logits[param("answer")].backward()
            clean.grad.save("clean")
            here.grad.save("corrupted")
    tasks = [
        Task(
            t.graph, {"clean": clean, "corrupted": (3, 1, 4), "layer": layer, "position": position, "answer": position}
        )
        for clean in ((5, 6, 7), (8, 6, 7))
        for layer in range(2)
        for position in range(3)
    ]
    check(subject, tasks)


def test_a_run_that_is_only_read_goes_through_no_pass_with_gradients() -> None:
    """Its pass keeps nothing, and tasks without gradients share it."""
    subject = family("llama")
    lm = recorder(subject)
    with lm.trace() as t:
        with t.invoke(param("clean")):
            clean = lm.blocks[1].residual
        with t.invoke(param("corrupted")):
            here = lm.blocks[1].residual
            lm.unembedding.output[0, -1, param("answer")].backward()
            (here.grad * (clean - here)).sum(-1).save("effect")
    tasks = [Task(t.graph, {"clean": (5, 6, 7), "corrupted": (3, 1, 4), "answer": n}) for n in range(4)]

    def reading(lm: LanguageModel) -> None:
        lm.blocks[2].residual.save("residual")

    lens = recorded(subject, reading)
    engine = Engine(subject.loaded)
    grads: list[bool] = []
    handle = subject.loaded.submodule("model.layers.2").register_forward_hook(
        lambda module, args, output: grads.append(output.requires_grad)
    )
    found = list(engine.run([*tasks, Task(lens, {"prompt": (5, 6, 7)})]))
    handle.remove()
    assert [outcome.error for outcome in found] == [None] * 5
    assert grads == [False, True]
    assert engine.counters.tokens == 3 + 3 + 4 * 3
    check(subject, tasks)


def test_what_is_overwritten_has_a_gradient_of_zero() -> None:
    subject = family("llama")

    def record(lm: LanguageModel) -> None:
        before = lm.blocks[0].residual
        lm.blocks[1].residual[:] = 1.0
        lm.unembedding.output[0, -1, param("answer")].backward()
        before.grad.save("gradient")

    graph = recorded(subject, record)
    tasks = [Task(graph, {"prompt": prompt, "answer": 7}) for prompt in PROMPTS]
    check(subject, tasks)
    assert all(not outcome.saves["gradient"].any() for outcome in run(subject, tasks))


def test_each_of_several_scalars_has_its_own_gradients() -> None:
    subject = family("gpt2")

    def record(lm: LanguageModel) -> None:
        residual, inner = lm.blocks[param("layer")].residual, lm.blocks[2].mlp.output
        logits = lm.unembedding.output[0, -1]
        for number in range(3):
            with logits[number].backward():
                residual.grad.save(f"residual{number}")
                inner.grad[:, -1].save(f"inner{number}")

    graph = recorded(subject, record)
    plain = [Task(t.graph, {k: v for k, v in t.bindings.items() if k in t.graph.params}) for t in sweep(graph)]
    check(subject, plain + sweep(recorded(subject, residual_gradient)))


def test_a_gradient_can_be_written_into_another_run_and_differentiated_there() -> None:
    """A step along the gradient: the second run is in a second pass, and its gradient does not see the first one's."""
    subject = family("llama")
    lm = recorder(subject)
    with lm.trace() as t:
        with t.invoke(param("prompt"), name="first"):
            residual = lm.blocks[0].residual
            lm.unembedding.output[0, -1, param("answer")].backward()
            step = 3.0 * residual.grad
        with t.invoke(param("prompt"), name="second"):
            lm.blocks[0].residual += step
            moved, logit = lm.blocks[0].residual, lm.unembedding.output[0, -1, param("answer")]
            logit.save("logit")
            logit.backward()
            moved.grad.save("gradient")
    check(subject, [Task(t.graph, {"prompt": prompt, "answer": n}) for n, prompt in enumerate(PROMPTS)])


def test_a_run_that_two_passes_go_through_has_the_gradient_of_both() -> None:
    """Its first block's output goes into another run, which comes back to its second block one pass later."""
    subject = family("llama")
    nodes = (
        Node("read", run=0, site="model.layers.0.output"),
        Node("write", (NodeRef(0),), run=1, site="model.layers.0.output"),
        Node("read", run=1, site="model.layers.2.output"),
        Node("write", (NodeRef(2),), run=0, site="model.layers.1.input"),
        Node("read", run=0, site="lm_head.output"),
        Node("getitem", (NodeRef(4), (0, -1, 3))),
        Node("backward", (NodeRef(5),)),
        Node("grad", (NodeRef(0), NodeRef(6))),
        Node("save", (NodeRef(7),), name="gradient"),
        Node("getitem", (NodeRef(0), (0, 0))),
        Node("write", (NodeRef(9),), run=0, site="model.layers.1.output", index=(0, 0)),
    )
    tasks = [Task(Graph({}, (Run("a", prompt), Run("b", prompt[::-1])), nodes)) for prompt in PROMPTS]
    check(subject, tasks)
    engine = Engine(subject.loaded)
    assert all(outcome.saves["gradient"].any() for outcome in engine.run(tasks))
    assert engine.counters.passes == 2


def test_programs_that_go_back_at_different_times_through_one_pass_do_not_hinder_each_other() -> None:
    """In rows: the first runs of both go through one pass, the second runs, of other lengths, through one each."""
    subject = family("gptj")
    nodes = (
        Node("read", run=0, site="transformer.h.0.mlp.output"),
        Node("read", run=0, site="transformer.h.1.mlp.output"),
        Node("getitem", (NodeRef(1), (SliceArg(), 0))),
        Node("write", (NodeRef(2),), run=1, site="transformer.h.1.mlp.output", index=(SliceArg(), 0)),
        Node("read", run=1, site="lm_head.output"),
        Node("getitem", (NodeRef(4), (0, -1, 3))),
        Node("backward", (NodeRef(5),)),
        Node("grad", (NodeRef(0), NodeRef(6))),
        Node("save", (NodeRef(7),), name="gradient"),
    )
    tasks = [Task(Graph({}, (Run("a", (5, 6, 7)), Run("b", second)), nodes)) for second in ((1, 2), (3, 4, 5, 6))]
    engine = Engine(subject.loaded)
    assert [outcome.error for outcome in engine.run(tasks)] == [None, None]
    assert engine.counters.passes == 3
    check(subject, tasks)


def failing(subject: Subject, record: Callable[[LanguageModel], None]) -> str:
    (outcome,) = run(subject, [Task(recorded(subject, record), {"prompt": (1, 2, 3)})])
    assert outcome.error is not None
    return f"{outcome.error.node}: {outcome.error}"


def test_a_gradient_by_what_the_scalar_does_not_depend_on_names_its_node() -> None:
    def record(lm: LanguageModel) -> None:
        late = lm.blocks[2].residual
        lm.blocks[0].residual[0, -1].sum().backward()
        late.grad.save("gradient")

    message = failing(family("llama"), record)
    assert message.startswith("5: ")
    assert "the scalar of node 4 does not depend on 'model.layers.2.output'" in message


def test_gradients_of_gradients_are_refused_and_of_constants_are_not() -> None:
    def record(lm: LanguageModel, *, constant: bool = False) -> None:
        residual = lm.blocks[0].residual
        lm.unembedding.output[0, -1, 3].backward()
        gradient = residual.grad.detach() if constant else residual.grad
        (gradient * residual).sum().backward()
        residual.grad.save("gradient")

    subject = family("llama")
    assert "gradients of gradients are not supported" in failing(subject, record)
    graph = recorded(subject, lambda lm: record(lm, constant=True))
    check(subject, [Task(graph, {"prompt": prompt}) for prompt in PROMPTS])


def test_a_task_without_a_scalar_and_one_of_nan_leave_their_neighbours_well() -> None:
    subject = family("llama")

    def record(lm: LanguageModel) -> None:
        residual = lm.blocks[1].residual
        logits = lm.unembedding.output[0, -1, param("begin") : param("end")]
        (logits * param("factor")).backward()
        residual.grad.save("gradient")

    graph = recorded(subject, record)
    bound: dict[str, Any] = {"prompt": (5, 6, 7), "begin": 3, "end": 4, "factor": 1.0}
    changes: list[dict[str, Any]] = [
        {},
        {"end": 6},
        {"factor": float("nan")},
        {"factor": float("inf")},
        {"begin": 2, "end": 3},
    ]
    tasks = [Task(graph, {**bound, **change}) for change in changes]
    well, wrong, nan, inf, other = run(subject, tasks)
    assert "backward needs one floating-point number" in str(wrong.error)
    assert nan.saves["gradient"].isnan().any()
    assert not inf.saves["gradient"].isfinite().all()
    for outcome, task in ((well, tasks[0]), (other, tasks[4])):
        check_saves(subject, outcome, task)


def test_nan_in_a_scalar_can_be_an_error() -> None:
    subject = family("llama")

    def record(lm: LanguageModel) -> None:
        residual = lm.blocks[1].residual
        (lm.unembedding.output[0, -1, 3] * param("factor")).backward()
        residual.grad.save("gradient")

    tasks = [Task(recorded(subject, record), {"prompt": (5, 6), "factor": f}) for f in (1.0, float("nan"))]
    well, wrong = sorted(Engine(subject.loaded).run(tasks, nan="error"), key=lambda outcome: outcome.index)
    assert "holds NaN" in str(wrong.error)
    check_saves(subject, well, tasks[0])


def test_a_run_with_gradients_leaves_its_trunk_at_the_block_of_its_first_gradient() -> None:
    """Of so many tasks of one prompt what comes before is computed once, and nothing but the trunk goes through it."""
    subject = family("llama")
    graph = recorded(subject, residual_gradient)
    tasks = [
        Task(graph, {"prompt": PROMPTS[0], "layer": 1, "answer": answer, "distractor": 50}) for answer in range(20)
    ]
    calls = dict.fromkeys(range(LAYERS), 0)
    with counting(subject, calls):
        check(subject, tasks)
    length = len(PROMPTS[0])
    assert calls == {0: length, 1: length, 2: 20 * length}


@contextmanager
def counting(subject: Subject, tokens: dict[int, int]) -> Iterator[None]:
    """How many tokens go through the MLP of each block."""

    def hook(layer: int) -> Callable[..., None]:
        def count(module: Any, args: tuple[Any, ...]) -> None:
            tokens[layer] += args[0].shape[1]

        return count

    handles = [
        subject.loaded.submodule(f"model.layers.{layer}.mlp").register_forward_pre_hook(hook(layer)) for layer in tokens
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(seeds=st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), min_size=1, max_size=6))
def test_random_graphs_with_gradients_together_equal_the_oracle(name: str, seeds: list[tuple[int, bool]]) -> None:
    subject = family(name)
    check(subject, [random_task(seed, subject.loaded.sites, gradients=gradients) for seed, gradients in seeds])


@pytest.mark.parametrize("name", ["qwen3", "mixtral", "gpt_oss", "gpt_neox", "opt", "bert", "falcon", "gptj"])
@settings(max_examples=10, deadline=None)
@given(seeds=st.lists(st.integers(0, 10**6), min_size=2, max_size=5))
def test_random_graphs_with_gradients_of_other_families_equal_the_oracle(name: str, seeds: list[int]) -> None:
    subject = family(name)
    check(subject, [random_task(seed, subject.loaded.sites, gradients=True) for seed in seeds])
