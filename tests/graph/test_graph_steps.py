"""Steps of a generation in the language: which are meant, what is refused, and what shapes they give."""

from typing import Any

import pytest

from ndif_batch.errors import GraphError, ShapeError
from ndif_batch.graph.infer import infer, infer_stopped
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.graph.serialize import canonical, loads
from ndif_batch.graph.steps import steps_of
from ndif_batch.graph.text import to_text
from ndif_batch.graph.validate import validate
from tests.site_maps import llama

SITES = llama(layers=2, width=8, mlp=16, keys=4, vocabulary=50)
SITE = "model.layers.0.output"
RUN = (Run("r", (1, 2, 3)),)


def steps(count: Any = 5, **options: Any) -> Node:
    return Node("steps", (count,), tuple(sorted(options.items())), run=0)


def graph(*nodes: Node, params: dict[str, ParamType] | None = None) -> Graph:
    return Graph(params or {}, RUN, nodes)


def read(step: int | SliceArg | None) -> Node:
    return Node("read", run=0, site=SITE, step=step)


def saved(of: int) -> Node:
    return Node("save", (NodeRef(of),), name="x")


@pytest.mark.parametrize(
    ("step", "meant"),
    [(None, [0]), (2, [2]), (-1, [4]), (SliceArg(), [0, 1, 2, 3, 4]), (SliceArg(1, None, 2), [1, 3])],
)
def test_steps_are_counted_as_python_counts(step: Any, meant: list[int]) -> None:
    assert list(steps_of(step, 5)) == meant


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((read(1), saved(0)), "generates nothing"),
        ((steps(), read(5), saved(1)), "step 5 is none of the 5 steps"),
        ((steps(), read(SliceArg(3, 3)), saved(1)), "names none"),
        ((steps(), read(SliceArg(None, None, -1)), saved(1)), "steps go forwards"),
        ((steps(), steps(), read(1), saved(2)), "has a number of steps already"),
        ((steps(stop=7), read(-1), saved(1)), "may stop early"),
        ((steps(temperature=0.0), read(1), saved(1)), "more than 0"),
        ((steps(top_k=0), read(1), saved(1)), "at least 1"),
        ((steps(top_p=1.5), read(1), saved(1)), "at most 1"),
        ((steps(5000), read(1), saved(1)), "the limit is 4,096"),
        ((Node("tokens", run=0), saved(0)), "generates nothing"),
        ((steps(ParamRef("n")), read(1), saved(1)), "not written in the graph"),
    ],
)
def test_what_means_nothing_is_refused(nodes: tuple[Node, ...], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        validate(graph(*nodes, params={"n": ParamType.INT}))


def test_a_graph_with_steps_reads_back_as_it_was_written() -> None:
    made = graph(steps(temperature=0.5, stop=(1, 2)), read(SliceArg(1, None, 2)), saved(1))
    assert loads(canonical(made)) == made
    assert b'"step":{"slice":[1,null,2]}' in canonical(made)
    assert "step=1::2" in to_text(made)


def test_a_graph_without_steps_says_nothing_of_them() -> None:
    assert b"step" not in canonical(graph(read(None), saved(0)))


def test_views_of_steps_are_joined_along_the_tokens() -> None:
    found = infer(graph(steps(), read(SliceArg()), read(2), read(SliceArg(1)), Node("tokens", run=0)), SITES)
    assert [value.shape for value in found[1:]] == [(1, 7, 8), (1, 1, 8), (1, 4, 8), (5,)]  # type: ignore[union-attr]


def test_a_run_that_stops_early_gives_less() -> None:
    made = graph(steps(stop=3), read(SliceArg()), Node("tokens", run=0), Node("getitem", (NodeRef(2), 4)))
    found = infer_stopped(made, SITES, steps=2)
    assert [getattr(value, "shape", None) for value in found] == [None, (1, 4, 8), (2,), None]


def test_a_write_at_steps_is_checked_against_the_view_of_each() -> None:
    def written(index: tuple[Any, ...], step: SliceArg) -> Graph:
        return graph(steps(), read(step), Node("write", (0.0,), run=0, site=SITE, index=index, step=step), saved(1))

    infer(written((0, -1), SliceArg()), SITES)
    infer(written((0, 2), SliceArg(0, 1)), SITES)
    with pytest.raises(ShapeError):
        infer(written((0, 2), SliceArg()), SITES)


def test_a_write_takes_each_steps_own_view_of_what_is_read_there() -> None:
    every = SliceArg(1)
    write = Node("write", (NodeRef(2),), run=0, site=SITE, step=every)
    infer(graph(steps(), read(every), Node("mul", (NodeRef(1), 2.0)), write, saved(2)), SITES)
