"""The drawing of a graph: nothing lies on anything else, and every arrow goes down."""

from __future__ import annotations

import re
from itertools import combinations

from ndif_batch.graph.nodes import Graph, Node, NodeRef, Run
from ndif_batch.server.dashboard.graph_picture import HEIGHT, MOST_NODES, WIDTH, Drawing, draw
from tests import toy
from tests.dashboard import scenes


def drawing(graph: Graph, failures: dict[int, int] | None = None) -> Drawing:
    found = draw(graph, failures or {})
    assert found is not None
    return found


def wide() -> Graph:
    """Forty additions of one read, and one sum over pairs of them."""
    many = tuple(Node("add", (NodeRef(0), i)) for i in range(40))
    pairs = tuple(Node("add", (NodeRef(1 + i), NodeRef(40 - i))) for i in range(20))
    return Graph({}, (Run("only", "text"),), (Node("read", run=0, site="lm_head.output"), *many, *pairs))


def test_no_box_lies_on_another_and_all_are_inside() -> None:
    for graph in (scenes.patching(), toy.reading(), wide()):
        found = drawing(graph)
        assert len(found.boxes) == len(graph.nodes) + len(graph.runs)
        for one, other in combinations(found.boxes, 2):
            assert abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= HEIGHT
        assert all(0 <= box.x <= found.size[0] - WIDTH and 0 <= box.y <= found.size[1] - HEIGHT for box in found.boxes)


def test_every_arrow_goes_down() -> None:
    for graph in (scenes.patching(), wide()):
        for path in drawing(graph).paths:
            numbers = [float(number) for number in re.findall(r"-?\d+", path)]
            assert numbers[1] < numbers[-1]


def test_a_read_after_a_write_of_its_run_comes_below_it() -> None:
    boxes = {box.key: box for box in drawing(scenes.patching()).boxes}
    assert boxes["n3"].kind == "read"
    assert boxes["n2"].kind == "write"
    assert boxes["n3"].y > boxes["n2"].y > boxes["n1"].y > boxes["r0"].y


def test_a_node_tells_how_many_tasks_failed_there() -> None:
    boxes = {box.key: box for box in drawing(scenes.patching(), {4: 24}).boxes}
    assert boxes["n4"].failures == 24
    assert sum(box.failures for box in boxes.values()) == 24
    assert boxes["n7"].note == "logit_diff"
    assert boxes["n1"].told == "%1 = getitem(%0, [0, {position}])"


def test_a_graph_that_is_too_large_is_not_drawn() -> None:
    nodes = tuple(Node("add", (1, 2)) for _ in range(MOST_NODES + 1))
    assert draw(Graph({}, (), nodes), {}) is None
