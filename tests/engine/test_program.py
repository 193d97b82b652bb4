"""When nodes can be computed, how far runs go, and which positions need the last module."""

import pytest

from ndif_batch.engine.program import Program, compile_task, optimise
from ndif_batch.errors import GraphError
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, Run, SliceArg
from tests.families import family

SITES = family("llama").loaded.sites
A, B = Run("a", (1, 2, 3, 4)), Run("b", (5, 6, 7, 8))
ALL = SliceArg()


def layer(i: int) -> str:
    return f"model.layers.{i}.output"


def program(runs: tuple[Run, ...], *nodes: Node, together: bool = True) -> Program:
    return compile_task(*optimise(Graph({}, runs, nodes)), SITES, together=together)


def read(run: int, site: str) -> Node:
    return Node("read", run=run, site=site)


def write(run: int, site: str, value: Arg) -> Node:
    return Node("write", (value,), run=run, site=site)


def save(node: int, name: str = "out") -> Node:
    return Node("save", (NodeRef(node),), name=name)


def test_a_value_used_later_in_the_model_needs_one_pass() -> None:
    made = program((A, B), read(0, layer(0)), write(1, layer(1), NodeRef(0)), read(1, layer(2)), save(2))
    assert made.stages == 1


def test_a_value_used_at_the_same_site_needs_one_pass() -> None:
    made = program((A, B), read(0, layer(1)), write(1, layer(1), NodeRef(0)), read(1, layer(2)), save(2))
    assert made.stages == 1


def test_a_value_needed_earlier_than_it_is_read_takes_a_second_pass() -> None:
    made = program((A, B), read(0, layer(2)), write(1, layer(0), NodeRef(0)), read(1, layer(1)), save(2))
    assert [(visit.stage, visit.run, visit.depth) for visit in made.visits] == [
        (0, 0, SITES.site(layer(2)).order),
        (1, 1, SITES.site(layer(1)).order),
    ]


def test_runs_that_feed_each_other_are_visited_again_without_being_a_cycle() -> None:
    made = program(
        (A, B),
        read(1, layer(0)),
        write(0, layer(1), NodeRef(0)),
        read(0, layer(2)),
        write(1, layer(1), NodeRef(2)),
        read(1, layer(2)),
        save(4),
    )
    assert [(visit.stage, visit.run, bool(visit.writes)) for visit in made.visits] == [
        (0, 0, True),
        (0, 1, False),
        (1, 1, True),
    ]


def test_a_true_cycle_is_an_error_that_names_its_nodes() -> None:
    with pytest.raises(GraphError, match=r"node 0 \(read model.layers.2.output\).*node 1 \(write") as caught:
        program((A,), read(0, layer(2)), write(0, layer(0), NodeRef(0)), save(0))
    assert caught.value.rule == "cycle"


def test_one_run_a_pass_gives_each_visit_its_own_stage() -> None:
    nodes = (read(0, layer(0)), write(1, layer(1), NodeRef(0)), read(1, layer(2)), save(2))
    made = program((A, B), *nodes, together=False)
    assert [(visit.stage, visit.run) for visit in made.visits] == [(0, 0), (1, 1)]


def test_a_run_ends_at_the_deepest_site_that_is_read() -> None:
    made = program((A,), read(0, layer(0)), read(0, layer(2)), save(0))
    assert [visit.depth for visit in made.visits] == [SITES.site(layer(0)).order]


def test_a_run_that_nobody_reads_is_not_visited() -> None:
    made = program((A, B), read(0, layer(0)), write(1, layer(1), 0.0), save(0))
    assert [visit.run for visit in made.visits] == [0]


def test_a_write_below_the_last_read_is_not_carried_out() -> None:
    made = program((A,), read(0, layer(0)), write(0, layer(1), 0.0), save(0))
    assert [made.graph.nodes[entry.node].op for entry in made.entries] == ["read", "save"]


def test_a_run_counts_as_changed_only_if_a_write_comes_before_its_end() -> None:
    assert not program((A,), read(0, layer(0)), write(0, layer(1), 0.0), save(0)).visits[0].writes
    assert program((A,), write(0, layer(0), 0.0), read(0, layer(1)), save(1)).visits[0].writes


def test_skip_is_a_write_of_the_whole_output_and_stop_changes_nothing() -> None:
    skip = Node("skip", (1.0,), run=0, site="model.layers.1")
    made = program((A,), skip, Node("stop", run=0), read(0, layer(1)), save(2))
    assert [node.op for node in made.graph.nodes] == ["write", "stop", "read", "save"]
    assert made.graph.nodes[0].site == layer(1)


def test_token_ids_cannot_be_written() -> None:
    with pytest.raises(GraphError, match=r"model.embed_tokens.input.* cannot be written"):
        program((A,), write(0, "model.embed_tokens.input", 3), read(0, layer(0)), save(1))
