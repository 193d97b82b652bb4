"""Generation: tasks that generate together save what each of them would alone, step by step."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndif_batch.engine.cache import Cache, Past
from ndif_batch.engine.engine import Engine, LayoutChoice
from ndif_batch.engine.forecast import POSITIONS, Forecaster
from ndif_batch.engine.outline import AssumedModel
from ndif_batch.graph.nodes import Graph, Node, NodeRef, Run, SliceArg
from ndif_batch.sweep.task import Task
from tests.families import family
from tests.generating import random_generation
from tests.graphs import random_task
from tests.oracle import Restless, Unknown, assert_equal, oracle_of

FAMILIES = ("llama", "gpt2", "qwen3", "gemma3_text", "gpt_neox", "opt", "mixtral", "gpt_oss", "bloom", "mamba")
SEEDS = st.lists(st.integers(0, 10**6), min_size=1, max_size=5)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(
    seeds=SEEDS, others=st.lists(st.integers(0, 10**6), max_size=2), batch_tokens=st.sampled_from([1, 9, 20, 60, 2048])
)
def test_random_generations_together_equal_the_oracle(
    name: str, seeds: list[int], others: list[int], batch_tokens: int
) -> None:
    sites = family(name).loaded.sites
    tasks = [random_generation(seed, sites) for seed in seeds] + [random_task(seed, sites) for seed in others]
    check(name, tasks, batch_tokens=batch_tokens)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=3, deadline=None)
@given(seeds=SEEDS)
def test_random_generations_run_solo_equal_the_oracle(name: str, seeds: list[int]) -> None:
    check(name, [random_generation(seed, family(name).loaded.sites) for seed in seeds], layout="solo")


def check(name: str, tasks: list[Task], layout: LayoutChoice = "auto", batch_tokens: int | None = None) -> None:
    subject = family(name)
    outcomes = {outcome.index: outcome for outcome in Engine(subject.loaded, batch_tokens).run(tasks, layout=layout)}
    assert sorted(outcomes) == list(range(len(tasks)))
    for index, task in enumerate(tasks):
        outcome = outcomes[index]
        alone = oracle_of(subject, task)
        try:
            truth = alone.saves()
        except (Restless, Unknown, IndexError, RuntimeError, ValueError):
            assert outcome.error is not None, task
            continue
        if outcome.error is not None and (alone.skipped or "depends on itself" in str(outcome.error)):
            continue
        assert outcome.error is None, (outcome.error, task)
        assert outcome.saves.keys() == truth.keys()
        for save, value in truth.items():
            assert_equal(f"{task}, {save}", outcome.saves[save], value)


def continued(prompt: tuple[int, ...], tokens: int, **options: object) -> Graph:
    steps = Node("steps", (tokens,), tuple(sorted(options.items())), run=0)  # type: ignore[arg-type]
    return Graph({}, (Run("r", prompt),), (steps, Node("tokens", run=0), Node("save", (NodeRef(1),), name="tokens")))


def tokens_of(name: str, tasks: list[Task], engine: Engine | None = None) -> list[list[int]]:
    outcomes = sorted((engine or Engine(family(name).loaded)).run(tasks), key=lambda outcome: outcome.index)
    assert [outcome.error for outcome in outcomes] == [None] * len(tasks)
    return [outcome.saves["tokens"].tolist() for outcome in outcomes]


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens_are_those_of_generate(name: str) -> None:
    prompts = [(3, 1, 4, 1, 5), (9, 2), (6, 5, 3, 5, 8, 9, 7), (9, 2)]
    native: Any = family(name).native
    native.generation_config.eos_token_id = None
    options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    rows = [native.generate(torch.tensor([prompt]), **options) for prompt in prompts]
    wanted = [row[0, len(prompt) :].tolist() for row, prompt in zip(rows, prompts, strict=True)]
    assert tokens_of(name, [Task(continued(prompt, 9)) for prompt in prompts]) == wanted


def test_a_seed_means_the_same_tokens_whoever_is_beside_it() -> None:
    graph = continued((1, 2, 3), 12, temperature=2.0, top_k=40)
    alone = [tokens_of("llama", [Task(graph, seed=seed)])[0] for seed in range(3)]
    neighbours = [Task(continued((4, 5), 7)), Task(continued((1, 2, 3), 12, top_p=0.9), seed=1)]
    together = tokens_of("llama", [*neighbours, *(Task(graph, seed=seed) for seed in range(3))])[2:]
    assert together == alone
    assert len(set(map(tuple, alone))) == 3


def test_a_run_that_stops_leaves_the_passes_that_go_on() -> None:
    long, short = (1, 2, 3), (7, 8, 9)
    (wanted,) = tokens_of("llama", [Task(continued(short, 20))])
    stop = wanted[4]
    engine = Engine(family("llama").loaded)
    whole, stopped = tokens_of("llama", [Task(continued(long, 20)), Task(continued(short, 20, stop=stop))], engine)
    end = wanted.index(stop) + 1
    assert stopped == wanted[:end]
    assert len(whole) == 20
    assert engine.counters.passes == 20
    assert engine.counters.tokens == 2 * 3 + 19 + (end - 1)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_tasks_that_join_others_midway_equal_the_oracle(data: st.DataObject) -> None:
    """Prompts, lengths, stops and seeds of all kinds, more tasks than there is room for at once."""
    sites = family("llama").loaded.sites
    drawn = st.integers(1, 20), st.integers(1, 12), st.integers(0, 1), st.integers(0, 3)
    tasks = []
    for number, (length, steps, stops, seed) in enumerate(
        data.draw(st.lists(st.tuples(*drawn), min_size=3, max_size=9))
    ):
        prompt = tuple(random.Random(seed * length).randrange(sites.vocabulary) for _ in range(length))
        options = {"temperature": 1.5, "stop": tuple(range(0, 96, 5))} if stops else {"top_k": 3} if seed else {}
        read = Node("read", run=0, site="model.layers.1.output", step=SliceArg())
        graph = continued(prompt, steps, **options)
        nodes = (*graph.nodes, read, Node("save", (NodeRef(3),), name="states"))
        tasks.append(Task(replace(graph, nodes=nodes), seed=number))
    check("llama", tasks, batch_tokens=data.draw(st.integers(1, 40)))


def test_waiting_tasks_join_as_soon_as_there_is_room() -> None:
    """Room is for two prompts, or for one beside four steps: the last one joins the fourth pass."""
    counts = [9, 3, 3, 3, 3, 9]
    tasks = [Task(continued((number, 1, 2, 3), steps)) for number, steps in enumerate(counts)]
    engine = Engine(family("llama").loaded, max_batch_tokens=8)
    ended = []
    for outcome in engine.run(tasks):
        ended.append(outcome.index)
        assert outcome.saves["tokens"].tolist() == tokens_of("llama", [tasks[outcome.index]])[0]
    assert ended == [1, 2, 3, 4, 0, 5]
    assert engine.counters.tokens == 6 * 4 + sum(steps - 1 for steps in counts)
    assert engine.counters.passes == 4 + 9
    forecast = Forecaster(AssumedModel(engine.model.sites, engine.model.layout), 8).forecast(tasks)
    assert forecast.efforts[POSITIONS].passes == engine.counters.passes
    assert forecast.efforts[POSITIONS].tokens == engine.counters.tokens
    assert forecast.tasks == len(tasks)


def test_tasks_that_generate_nothing_go_along_with_those_that_do() -> None:
    read = (Node("read", run=0, site="model.layers.0.output"), Node("save", (NodeRef(0),), name="tokens"))
    plain = [Task(Graph({}, (Run("r", (number, 5, 6)),), read)) for number in range(4)]
    engine = Engine(family("llama").loaded, max_batch_tokens=6)
    found = list(engine.run([Task(continued((1, 2, 3), 6)), *plain]))
    assert [outcome.index for outcome in found] == [1, 2, 3, 4, 0]
    assert engine.counters.passes == 6
    check("llama", plain, batch_tokens=6)


def test_who_joins_and_breaks_a_pass_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were on their way begin again, and save what they save alone."""
    tasks = [Task(continued((number, 1, 2, 3), 3 + number)) for number in range(6)]
    wanted = tokens_of("llama", tasks)
    embedding = family("llama").loaded.submodule("model.embed_tokens")

    def out_of_order(module: Any, args: Any) -> None:
        if any(row[:4] == [4, 1, 2, 3] for row in (args[0][0, i:].tolist() for i in range(args[0].shape[1]))):
            raise ValueError("such a prompt cannot be")

    handle = embedding.register_forward_pre_hook(out_of_order)
    try:
        found = {outcome.index: outcome for outcome in Engine(family("llama").loaded, 9).run(tasks)}
    finally:
        handle.remove()
    assert sorted(found) == list(range(6))
    assert "such a prompt cannot be" in str(found[4].error)
    for index in (0, 1, 2, 3, 5):
        assert found[index].saves["tokens"].tolist() == wanted[index]


def test_an_error_of_the_caller_s_tasks_is_not_taken_for_one_of_a_pass() -> None:
    def tasks() -> Iterator[Task]:
        yield Task(continued((1, 2, 3), 4))
        raise LookupError("there are no more")

    with pytest.raises(LookupError):
        list(Engine(family("llama").loaded).run(tasks()))


SETTINGS = st.fixed_dictionaries(
    {}, optional={"temperature": st.floats(0.2, 3), "top_k": st.integers(1, 50), "top_p": st.floats(0.05, 1)}
)


@settings(max_examples=20, deadline=None)
@given(own=SETTINGS, seed=st.integers(0, 99), others=st.lists(st.tuples(SETTINGS, st.integers(1, 9)), max_size=4))
def test_what_is_drawn_does_not_depend_on_neighbours(
    own: dict[str, float], seed: int, others: list[tuple[dict[str, float], int]]
) -> None:
    task = Task(continued((1, 2, 3), 5, **own), seed=seed)
    (alone,) = tokens_of("llama", [task])
    neighbours = [Task(continued((1, 2, 3)[:length], length, **beside), seed=seed) for beside, length in others]
    for batch_tokens in (4, 2048):
        engine = Engine(family("llama").loaded, batch_tokens)
        assert tokens_of("llama", [*neighbours, task], engine)[-1] == alone


def test_tasks_that_generate_the_same_share_their_tokens() -> None:
    engine = Engine(family("llama").loaded)
    assert len(set(map(tuple, tokens_of("llama", [Task(continued((1, 2, 3), 6))] * 5, engine)))) == 1
    assert engine.counters.tokens == 3 + 5


def test_steps_that_nobody_needs_are_not_taken() -> None:
    read = Node("read", run=0, site="model.layers.0.output", step=2)
    graph = Graph(
        {}, (Run("r", (1, 2, 3)),), (Node("steps", (50,), run=0), read, Node("save", (NodeRef(1),), name="x"))
    )
    engine = Engine(family("llama").loaded)
    (outcome,) = engine.run([Task(graph)])
    assert outcome.saves["x"].shape == (1, 1, 48)
    assert engine.counters.passes == 3


def test_a_step_that_was_not_taken_is_that_tasks_error_alone() -> None:
    (wanted,) = tokens_of("llama", [Task(continued((1, 2, 3), 6))])
    nodes = (
        Node("steps", (6,), (("stop", wanted[1]),), run=0),
        Node("read", run=0, site="model.layers.0.output", step=5),
        Node("save", (NodeRef(1),), name="x"),
    )
    tasks = [Task(Graph({}, (Run("r", (1, 2, 3)),), nodes)), Task(continued((4, 5), 6))]
    late, beside = sorted(Engine(family("llama").loaded).run(tasks), key=lambda outcome: outcome.index)
    assert "stopped before" in str(late.error)
    assert beside.error is None


def test_a_generation_is_given_up_between_steps_when_it_is_interrupted() -> None:
    asked = count(1)
    engine = Engine(family("llama").loaded, interrupted=lambda: next(asked) > 3)
    assert list(engine.run([Task(continued((1, 2, 3), 50))])) == []
    assert engine.counters.passes == 4


def test_more_tokens_than_the_model_takes_are_refused() -> None:
    (outcome,) = Engine(family("llama").loaded).run([Task(continued((1, 2, 3), 63))])
    assert "the model takes 64" in str(outcome.error)


def test_a_model_that_sees_later_tokens_generates_nothing() -> None:
    (outcome,) = Engine(family("bert").loaded).run([Task(continued((1, 2, 3), 2))])
    assert "cannot generate" in str(outcome.error)


def test_gradients_and_generation_do_not_go_together() -> None:
    nodes = (
        Node("steps", (3,), run=0),
        Node("read", run=0, site="model.layers.0.output"),
        Node("sum", (NodeRef(1),)),
        Node("backward", (NodeRef(2),)),
        Node("grad", (NodeRef(1), NodeRef(3))),
        Node("save", (NodeRef(4),), name="x"),
    )
    (outcome,) = Engine(family("llama").loaded).run([Task(Graph({}, (Run("r", (1, 2, 3)),), nodes))])
    assert "do not go together" in str(outcome.error)


def test_branches_of_a_generation_fork_their_cache_and_take_back_what_is_free() -> None:
    cache = Cache()
    first = cache.region(10)
    first.used = 4
    past = Past(first, 4)
    own = cache.extended(past, 5)
    assert own is first
    own.used = 5
    fork = cache.extended(past, 5)
    assert fork is not first
    assert fork.begin >= first.begin + first.room
    begin = fork.begin
    del fork
    assert cache.region(5).begin == begin
