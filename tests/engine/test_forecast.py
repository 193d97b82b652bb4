"""What is planned without weights, against what the engine then does."""

from dataclasses import replace
from itertools import pairwise

import pytest

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.forecast import (
    ALONE,
    BRANCHES,
    COMMON,
    DEAD,
    DEPTH,
    LEAVE,
    POSITIONS,
    SHARING,
    STEPS,
    VECTORISE,
    Effort,
    Forecaster,
)
from ndif_batch.engine.outline import AssumedModel, assumed_layout
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.sweep.task import Task
from tests.families import blocks, family

PROMPT = (5, 6, 7, 8, 9, 10, 11)


def patching(layers: list[str], head: str) -> list[Task]:
    """A vector of one prompt in place of another's, at every block and position."""
    parent = layers[0].rpartition(".")[0]
    site = f"{parent}.{{layer}}.input"
    nodes = (
        Node("read", run=0, site=site),
        Node("getitem", (NodeRef(0), (SliceArg(), ParamRef("position")))),
        Node("write", (NodeRef(1),), run=1, site=site, index=(SliceArg(), ParamRef("position"))),
        Node("read", run=1, site=f"{head}.output"),
        Node("getitem", (NodeRef(3), (0, -1))),
        Node("save", (NodeRef(4),), name="logits"),
    )
    params = {"layer": ParamType.INT, "position": ParamType.INT}
    graph = Graph(params, (Run("clean", PROMPT), Run("corrupted", (*PROMPT[:2], 20, *PROMPT[3:]))), nodes)
    points = [(layer, position) for layer in range(len(layers)) for position in range(len(PROMPT))]
    return [Task(graph, {"layer": layer, "position": at}, id=n) for n, (layer, at) in enumerate(points)]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj"])
@pytest.mark.parametrize("batch_tokens", [50, 2048])
def test_passes_and_tokens_are_those_that_then_happen(name: str, batch_tokens: int) -> None:
    loaded = family(name).loaded
    layout = assumed_layout(loaded.sites, packed=name != "gptj", causal=True)
    assert layout.moments == replace(loaded.layout.moments, tails=())
    assert layout.arrangement == loaded.layout.arrangement
    tasks = patching(blocks(loaded), str(loaded.sites.head))
    efforts = Forecaster(AssumedModel(loaded.sites, layout), batch_tokens).forecast(tasks).efforts
    engine = Engine(loaded, batch_tokens)
    assert [outcome.error for outcome in engine.run(tasks) if outcome.error] == []
    assert (efforts[POSITIONS].passes, efforts[POSITIONS].tokens) == (engine.counters.passes, engine.counters.tokens)
    steps = [efforts[step] for step in (ALONE, SHARING, DEPTH, LEAVE, BRANCHES)]
    work = [effort.token_blocks for effort in steps]
    assert work == sorted(work, reverse=True)
    assert work[0] == 2 * len(tasks) * len(PROMPT) * 3
    assert efforts[POSITIONS].positions == len(tasks)


LAYERS, TOKENS = 3, len(PROMPT)


def steps(*graphs: Graph, tasks: int = 1, batch_tokens: int = 2048) -> dict[str, Effort]:
    """What each of the engine's means leaves of ``tasks`` of each graph on a llama of three layers."""
    loaded = family("llama").loaded
    planner = Forecaster(AssumedModel(loaded.sites, loaded.layout, footprint=loaded.footprint), batch_tokens)
    given = [Task(graph, {}) for graph in graphs for _ in range(tasks)]
    return dict(planner.forecast([Task(task.graph, {}, id=n) for n, task in enumerate(given)]).efforts)


def saves(before: str, after: str, efforts: dict[str, Effort]) -> set[str]:
    """In what ``after`` is less than ``before``; in nothing is it more but that a trunk goes in beside its branches."""
    one, other = efforts[before], efforts[after]
    names = Effort.__dataclass_fields__
    assert all(getattr(other, name) <= getattr(one, name) for name in names if name != "tokens")
    return {name for name in names if getattr(other, name) < getattr(one, name)}


def read(layer: int, run: int = 0) -> Node:
    return Node("read", run=run, site=f"model.layers.{layer}.output")


def save(node: int, name: str = "out") -> Node:
    return Node("save", (NodeRef(node),), name=name)


def graph(*nodes: Node, runs: int = 1) -> Graph:
    return Graph({}, tuple(Run(f"r{n}", (*PROMPT[:-1], n + 3)) for n in range(runs)), nodes)


def test_a_run_that_only_dead_nodes_read_is_not_computed() -> None:
    found = steps(graph(read(0), read(2, run=1), Node("neg", (NodeRef(1),)), save(0), runs=2))
    assert saves(ALONE, DEAD, found) == {"passes", "tokens", "layers", "token_blocks", "positions", "bytes", "nodes"}
    assert (found[ALONE].passes, found[DEAD].passes, found[ALONE].nodes, found[DEAD].nodes) == (2, 1, 4, 2)
    assert found[DEAD].token_blocks == TOKENS * LAYERS


def test_equal_nodes_are_carried_out_once() -> None:
    found = steps(
        graph(read(1), read(1), Node("neg", (NodeRef(0),)), Node("neg", (NodeRef(1),)), save(2), save(3, "b"))
    )
    assert saves(DEAD, COMMON, found) == {"nodes"}
    assert (found[DEAD].nodes, found[COMMON].nodes) == (6, 4)


def test_equal_runs_of_several_tasks_are_one() -> None:
    found = steps(graph(read(0), save(0)), graph(read(2), save(0)), tasks=5)
    assert saves(COMMON, SHARING, found) >= {"passes", "tokens", "layers", "token_blocks", "bytes"}
    assert (found[COMMON].tokens, found[SHARING].tokens, found[SHARING].passes) == (10 * TOKENS, TOKENS, 1)


def test_a_pass_ends_after_the_deepest_site_that_is_needed() -> None:
    found = steps(graph(read(1), save(0)))
    assert saves(SHARING, DEPTH, found) == {"layers", "token_blocks", "positions", "bytes"}
    assert (found[DEPTH].layers, found[DEPTH].positions) == (2, 0)


def test_a_run_leaves_when_nothing_more_is_read_of_it() -> None:
    found = steps(graph(read(0), read(2, run=1), save(0), save(1, "b"), runs=2))
    assert saves(DEPTH, LEAVE, found) == {"token_blocks", "bytes"}
    assert found[DEPTH].token_blocks - found[LEAVE].token_blocks == 2 * TOKENS


def test_branches_compute_from_the_written_layer_and_position_on() -> None:
    def patched(number: float) -> Graph:
        write = Node("write", (number,), run=0, site="model.layers.1.output", index=(SliceArg(), TOKENS - 2))
        return graph(write, read(2), save(1))

    found = steps(*(patched(float(n)) for n in range(4)), graph(read(2), save(0)))
    assert saves(LEAVE, BRANCHES, found) == {"tokens", "token_blocks", "bytes"}
    assert found[BRANCHES].token_blocks == TOKENS * LAYERS + 4 * 2 * 1


def test_what_is_changed_in_the_same_way_is_computed_once() -> None:
    write = Node("write", (0.0,), run=0, site="model.layers.1.output", index=(SliceArg(), TOKENS - 2))
    deep, flat = graph(write, read(2), save(1)), graph(write, read(1), save(1))
    found = steps(deep, flat, tasks=4)
    assert saves(COMMON, SHARING, found) == {"passes", "tokens", "layers", "token_blocks", "positions", "bytes"}
    assert (found[ALONE].tokens, found[SHARING].tokens) == (8 * TOKENS, TOKENS)


def test_the_head_sees_the_positions_that_are_read() -> None:
    last = graph(Node("read", run=0, site="lm_head.output"), Node("getitem", (NodeRef(0), (0, -1))), save(1))
    found = steps(last)
    assert saves(BRANCHES, POSITIONS, found) == {"positions", "bytes"}
    assert (found[BRANCHES].positions, found[POSITIONS].positions) == (TOKENS, 1)


def test_nodes_are_carried_out_for_all_tasks_of_a_graph_at_once() -> None:
    found = steps(graph(read(1), save(0)), tasks=50)
    assert saves(POSITIONS, VECTORISE, found) == {"nodes"}
    assert (found[POSITIONS].nodes, found[VECTORISE].nodes) == (100, 2)


def test_every_means_is_told_and_none_makes_anything_more() -> None:
    write = Node("write", (NodeRef(0),), run=1, site="model.layers.1.output")
    found = steps(graph(read(0), write, read(2, run=1), save(2), runs=2), tasks=3)
    assert tuple(found) == STEPS
    for before, after in pairwise(STEPS):
        saves(before, after, found)


def test_what_cannot_be_run_with_its_dead_nodes_counts_as_without_them() -> None:
    ids = Node("write", (1,), run=1, site="model.embed_tokens.input")
    found = steps(graph(read(0), ids, save(0), runs=2))
    assert found[ALONE] == found[DEAD] == found[COMMON]


def test_gradients_go_back_to_the_first_of_their_sites_once_for_all_tasks() -> None:
    """Alone every task goes back by itself; together each token goes back through the blocks after the first site."""
    loaded = family("llama").loaded
    nodes = (
        Node("read", run=0, site="model.layers.{layer}.output"),
        Node("read", run=0, site="lm_head.output"),
        Node("getitem", (NodeRef(1), (0, -1, 3))),
        Node("backward", (NodeRef(2),)),
        Node("grad", (NodeRef(0), NodeRef(3))),
        Node("save", (NodeRef(4),), name="gradient"),
    )
    graph = Graph({"layer": ParamType.INT}, (Run("r", PROMPT),), nodes)
    planner = Forecaster(AssumedModel(loaded.sites, loaded.layout, footprint=loaded.footprint), 2048)
    efforts = planner.forecast([Task(graph, {"layer": n % LAYERS}, id=n) for n in range(2 * LAYERS)]).efforts
    assert (efforts[ALONE].backwards, efforts[ALONE].blocks_back) == (2 * LAYERS, 2 * (2 + 1 + 0) * TOKENS)
    assert (efforts[LEAVE].backwards, efforts[LEAVE].blocks_back) == (1, 2 * LAYERS * 2 * TOKENS)
    trunk = 1
    assert efforts[BRANCHES].blocks_back == (2 * (2 + 1) + trunk * 2) * TOKENS
    assert efforts[VECTORISE].backwards == 1
    plain = planner.forecast([Task(graph, {"layer": 0})]).efforts[VECTORISE]
    assert (plain.passes, plain.backwards) == (1, 1)
