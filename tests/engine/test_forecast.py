"""What is planned without weights, against what the engine then does."""

import pytest

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.forecast import ALONE, BRANCHES, DEPTH, LEAVE, POSITIONS, SHARING, Forecaster
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
    assert layout.moments == loaded.layout.moments
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
