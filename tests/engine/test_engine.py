"""Batches, errors that stay with their task, sharing, and what is not computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ndif_batch.engine.engine import Engine, Outcome
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg, TensorRef
from ndif_batch.sweep.task import Task
from tests.families import Subject, blocks, family
from tests.oracle import assert_equal, oracle

PROMPT = tuple(range(3, 12))
ALL = SliceArg()


@pytest.fixture
def subject() -> Subject:
    return family("llama")


def graph(*nodes: Node, runs: int = 1) -> Graph:
    return Graph({}, tuple(Run(f"r{i}", PROMPT) for i in range(runs)), nodes)


def read(site: str, run: int = 0) -> Node:
    return Node("read", run=run, site=site)


def at(node: int, *index: Arg) -> Node:
    return Node("getitem", (NodeRef(node), index))


def save(node: int, name: str = "out") -> Node:
    return Node("save", (NodeRef(node),), name=name)


LAST = (read("lm_head.output"), at(0, 0, -1), save(1))
WELL = Task(graph(*LAST))
OUTSIDE = Task(graph(read("model.layers.1.output"), at(0, 0, 20), save(1)))
WRONG_SHAPE = Task(
    graph(
        Node("write", (TensorRef("c"),), run=0, site="model.layers.0.output", index=(ALL, 1)),
        read("lm_head.output"),
        save(1),
    )
)
NAN = Task(
    graph(
        Node("write", (float("nan"),), run=0, site="model.layers.0.output"),
        read("lm_head.output"),
        at(1, 0, -1),
        save(2),
    )
)
HUGE = Task(
    graph(
        Node("write", (1e30,), run=0, site="model.layers.0.output"),
        read("lm_head.output"),
        at(1, 0, -1),
        save(2),
    )
)
CONSTANTS = {"c": torch.zeros(5)}


def outcomes(subject: Subject, tasks: list[Task], **options: Any) -> list[Outcome]:
    engine = Engine(subject.loaded, options.pop("max_batch_tokens", 1024))
    return sorted(engine.run(tasks, constants=CONSTANTS, **options), key=lambda outcome: outcome.index)


@pytest.mark.parametrize("bad", [OUTSIDE, WRONG_SHAPE, NAN, HUGE], ids=["outside", "shape", "nan", "huge"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text"])
def test_neighbours_of_a_bad_task_get_what_they_would_get_alone(name: str, bad: Task) -> None:
    own = family(name)
    if name == "gpt2":
        bad = Task(Graph({}, bad.graph.runs, tuple(in_gpt2(node) for node in bad.graph.nodes)))
    result = outcomes(own, [WELL, bad, WELL, bad, WELL])
    for index in (0, 2, 4):
        assert result[index].error is None
        assert_equal("out", result[index].saves["out"], oracle(own, WELL)["out"])


def in_gpt2(node: Node) -> Node:
    site = None if node.site is None else node.site.replace("model.layers", "transformer.h")
    return Node(node.op, node.args, node.kwargs, node.run, site, node.index, node.name)


WILD = [float("nan"), float("inf"), -float("inf"), 1e38]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text", "mixtral", "gpt_oss", "gptj"])
def test_wild_values_at_some_positions_leave_everybody_with_what_they_get_alone(name: str) -> None:
    own = family(name)
    first, *_, last = blocks(own.loaded)

    items = (0,) if isinstance(own.loaded.sites.site(f"{first}.output").value, tuple) else ()
    end = (read(f"{last}.output"), *(Node("getitem", (NodeRef(0), items)) for _ in items))

    def changed(value: float, *index: Arg) -> Task:
        write = Node("write", (value,), run=0, site=f"{first}.output", index=(*items, *index))
        return Task(graph(write, *shifted((*end, save(len(items))))))

    well = [Task(graph(*end, save(len(items)))), *(changed(0.5, ALL, position) for position in (2, 7, -1))]
    wild = [changed(value, ALL, position) for value in WILD for position in (0, 4, -1)]
    tasks = [task for pair in zip(wild, well * 3, strict=True) for task in pair]
    for layout in ("auto", "solo"):
        for task, outcome in zip(tasks, outcomes(own, tasks, layout=layout), strict=True):
            assert outcome.error is None
            assert_equal("out", outcome.saves["out"], oracle(own, task)["out"])


def test_only_a_branch_that_holds_what_is_not_finite_is_run_again(subject: Subject) -> None:
    def tokens(*values: float, index: tuple[Arg, ...] = (ALL, 4)) -> int:
        engine = Engine(subject.loaded)
        write = [Node("write", (value,), run=0, site="model.layers.0.output", index=index) for value in values]
        tasks = [Task(graph(one, read("model.layers.2.output"), save(1))) for one in write]
        assert sorted(outcome.index for outcome in engine.run(tasks)) == list(range(len(values)))
        assert engine.counters.tasks == len(values)
        return engine.counters.tokens

    length, branch = len(PROMPT), len(PROMPT) - 4
    assert tokens(0.5, 1.0, 2.0) == length + 3 * branch
    assert tokens(0.5, float("nan"), 2.0, float("inf")) == (length + 4 * branch) + 3 * length
    assert tokens(0.5, float("nan"), 2.0, index=(ALL,)) == 4 * length


def test_a_failing_node_is_named_with_its_submitted_id(subject: Subject) -> None:
    error = outcomes(subject, [OUTSIDE])[0].error
    assert error is not None
    assert error.node == 1
    assert "node 1 (getitem)" in error.message
    assert "20" in error.message


def test_nan_fails_a_task_only_where_the_policy_says_so(subject: Subject) -> None:
    assert outcomes(subject, [NAN])[0].error is None
    refused, well = outcomes(subject, [NAN, WELL], nan="error")
    assert refused.error is not None
    assert "NaN" in refused.error.message
    assert well.error is None


def test_tasks_that_cannot_be_prepared_fail_alone(subject: Subject) -> None:
    nowhere = Task(graph(read("model.layers.7.output"), save(0)))
    empty = Task(Graph({"p": ParamType.PROMPT}, (Run("r", ParamRef("p")),), LAST), {"p": ()})
    unknown = Task(Graph({}, (Run("r", (10_000,)),), LAST))
    result = outcomes(subject, [nowhere, empty, WELL, unknown])
    messages = [outcome.error.message if outcome.error else None for outcome in result]
    assert "no site 'model.layers.7.output'" in str(messages[0])
    assert "no tokens" in str(messages[1])
    assert messages[2] is None
    assert "10000" in str(messages[3])


def test_a_pass_that_breaks_is_halved_until_the_task_that_breaks_it_is_found(subject: Subject) -> None:
    poison = Task(Graph({}, (Run("r", (1, 96, 2)),), LAST))
    with refusing(subject, token=96):
        result = outcomes(subject, [WELL, WELL, poison, WELL])
    assert [outcome.error is None for outcome in result] == [True, True, False, True]
    assert "out of memory" in str(result[2].error)


@contextmanager
def refusing(subject: Subject, token: int) -> Iterator[None]:
    def hook(module: Any, args: tuple[Any, ...]) -> None:
        if bool((args[0] == token).any()):
            raise torch.OutOfMemoryError("out of memory")

    model: Any = subject.loaded.module
    handle = model.get_input_embeddings().register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_equal_prompts_without_writes_are_one_run(subject: Subject) -> None:
    engine = Engine(subject.loaded)
    list(engine.run([WELL] * 10))
    assert (engine.counters.passes, engine.counters.tokens) == (1, len(PROMPT))


def test_a_batch_holds_no_more_tokens_than_it_may(subject: Subject) -> None:
    writes = [Node("write", (float(n),), run=0, site="model.layers.0.output") for n in range(6)]
    engine = Engine(subject.loaded, max_batch_tokens=2 * len(PROMPT))
    list(engine.run([Task(graph(write, *shifted(LAST))) for write in writes]))
    assert engine.counters.passes == 3


def shifted(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    def moved(arg: Arg) -> Arg:
        return NodeRef(arg.node + 1) if isinstance(arg, NodeRef) else arg

    return tuple(
        Node(node.op, tuple(moved(arg) for arg in node.args), run=node.run, site=node.site, name=node.name)
        for node in nodes
    )


def test_nothing_below_the_deepest_read_is_computed(subject: Subject) -> None:
    assert visited(subject, [Task(graph(read("model.layers.0.output"), save(0)))]) == {"model.layers.0"}
    assert "lm_head" in visited(subject, [WELL])


def test_the_head_sees_only_the_positions_that_are_read(subject: Subject) -> None:
    lengths = []
    handle = subject.loaded.submodule("lm_head").register_forward_hook(
        lambda module, args, output: lengths.append(output.shape[1])
    )
    list(Engine(subject.loaded).run([WELL, Task(graph(read("lm_head.output"), at(0, 0, 2), save(1)))]))
    handle.remove()
    assert lengths == [2]


def visited(subject: Subject, tasks: list[Task]) -> set[str]:
    seen: set[str] = set()
    watched = ["model.layers.0", "model.layers.1", "model.layers.2", "lm_head"]
    handles = [
        subject.loaded.submodule(path).register_forward_hook(lambda *_, path=path: seen.add(path)) for path in watched
    ]
    list(Engine(subject.loaded).run(tasks))
    for handle in handles:
        handle.remove()
    return seen


def test_random_numbers_depend_on_the_seed_and_not_on_the_company(subject: Subject) -> None:
    noise = graph(Node("randn", ((4,),)), Node("randn", ((4,),)), save(0, "a"), save(1, "b"))
    one, other = (outcomes(subject, [Task(noise, seed=seed)])[0].saves for seed in (1, 2))
    again = outcomes(subject, [WELL, Task(noise, seed=1), Task(noise, seed=2)])
    assert torch.equal(again[1].saves["a"], one["a"])
    assert torch.equal(again[2].saves["a"], other["a"])
    assert not torch.equal(one["a"], one["b"])
    assert not torch.equal(one["a"], other["a"])


def test_saves_are_the_tasks_own_memory(subject: Subject) -> None:
    whole = Task(graph(read("model.layers.1.output"), save(0)))
    first, second = outcomes(subject, [whole, whole])
    first.saves["out"].zero_()
    assert second.saves["out"].abs().sum() > 0


def test_what_is_printed_is_told_with_the_outcome(subject: Subject) -> None:
    spoken = Task(graph(read("model.layers.1.output"), at(0, 0, 0, 0), Node("print", (NodeRef(1),), name="h"), save(1)))
    outcome = outcomes(subject, [spoken])[0]
    assert outcome.prints == (("h", str(outcome.saves["out"].item())),)


@pytest.mark.parametrize("layout", ["auto", "solo"])
def test_runs_of_one_task_can_feed_each_other_in_any_layout(subject: Subject, layout: str) -> None:
    task = Task(
        Graph(
            {},
            (Run("a", (1, 2, 3, 4)), Run("b", (5, 6, 7, 8))),
            (
                read("model.layers.0.output", 1),
                Node("write", (NodeRef(0),), run=0, site="model.layers.1.output"),
                read("model.layers.2.output", 0),
                Node("write", (NodeRef(2),), run=1, site="model.layers.1.output"),
                read("lm_head.output", 1),
                save(4),
            ),
        )
    )
    assert_equal("out", outcomes(subject, [task], layout=layout)[0].saves["out"], oracle(subject, task)["out"])
