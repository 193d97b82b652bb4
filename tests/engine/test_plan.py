"""Which runs of a pass share what, from where on they are apart, how far they go, and the tokens that this computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from ndif_batch.engine.blocks import FROM_THE_BEGINNING, Moments
from ndif_batch.engine.cohort import Cohort
from ndif_batch.engine.engine import Engine
from ndif_batch.engine.plan import PassPlan, plan_pass
from ndif_batch.engine.prepare import Preparation
from ndif_batch.engine.routes import routes
from ndif_batch.engine.tasks import Surroundings
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.sweep.task import Task
from tests.families import FAMILIES, Subject, blocks, family
from tests.oracle import assert_equal, oracle

PROMPT = tuple(range(3, 12))
OTHER = (40, 41, 42, 43)
LENGTH = len(PROMPT)
ALL = SliceArg()
LLAMA = family("llama")
MOMENTS = LLAMA.loaded.layout.moments
HEAD = "lm_head.output"
HEAD_ORDER = LLAMA.loaded.sites.site(HEAD).order
SURROUNDINGS = Surroundings(
    weight=LLAMA.loaded.weight, call=lambda path, args: None, constant=lambda digest: torch.zeros(1),
    device=LLAMA.loaded.device,
)  # fmt: skip


def output(block: int) -> str:
    return f"model.layers.{block}.output"


def order(site: str) -> int:
    return LLAMA.loaded.sites.site(site).order


def one_run(*nodes: Node, prompt: tuple[int, ...] = PROMPT) -> Task:
    return Task(Graph({}, (Run("r", prompt),), nodes))


def reading(site: str, *index: Arg, prompt: tuple[int, ...] = PROMPT) -> Task:
    nodes = (
        Node("read", run=0, site=site),
        Node("getitem", (NodeRef(0), index)),
        Node("save", (NodeRef(1),), name="x"),
    )
    return one_run(*nodes, prompt=prompt)


def writing(site: str, *index: Arg, until: str = HEAD, seen: Arg = -1, prompt: tuple[int, ...] = PROMPT) -> Task:
    """Writes zeros to a part of a site; of ``until`` one position, or what ``seen`` says, is read."""
    nodes = (
        Node("write", (0.0,), run=0, site=site, index=index or None),
        Node("read", run=0, site=until),
        Node("getitem", (NodeRef(1), (0, seen))),
        Node("save", (NodeRef(2),), name="x"),
    )
    return one_run(*nodes, prompt=prompt)


def differing(task: Task, count: int) -> list[Task]:
    """So many tasks that differ in the numbers that they write: equal ones would be one run."""

    def writes(node: Node, number: float) -> Node:
        return replace(node, args=(number,)) if node.op == "write" else node

    graph = task.graph
    graphs = [replace(graph, nodes=tuple(writes(node, float(n)) for node in graph.nodes)) for n in range(count)]
    return [replace(task, graph=one) for one in graphs]


def planned(tasks: Sequence[Task], moments: Moments = MOMENTS) -> tuple[PassPlan, list[int]]:
    """The plan of the first pass, and the lane of each task's run."""
    preparation = Preparation(LLAMA.loaded, solo=False, constants={})
    prepared = [preparation.task(index, task) for index, task in enumerate(tasks)]
    cohorts = [Cohort(task.program, [task.member], SURROUNDINGS) for task in prepared]
    known = {id(task.program): routes(task.program, LLAMA.loaded.sites, moments) for task in prepared}
    plan = plan_pass(cohorts, known, moments)
    assert plan is not None
    return plan, [int(cohort.lanes[0, 0][0]) for cohort in cohorts]


def shapes(plan: PassPlan, lanes: Sequence[int]) -> list[tuple[int, int]]:
    """Birth and start of some lanes."""
    return [(int(plan.birth[lane]), int(plan.lanes.start[lane])) for lane in lanes]


def computed(tasks: Sequence[Task], subject: Subject = LLAMA) -> int:
    """The tokens that an engine computes for tasks, whose values it checks."""
    engine = Engine(subject.loaded, max_batch_tokens=10_000)
    for outcome in engine.run(tasks):
        assert outcome.error is None, outcome.error
        for name, value in oracle(subject, tasks[outcome.index]).items():
            assert_equal(name, outcome.saves[name], value)
    return engine.counters.tokens


@contextmanager
def watched(*paths: str) -> Iterator[dict[str, list[int]]]:
    """How many tokens modules see."""
    seen: dict[str, list[int]] = {path: [] for path in paths}

    def watch(path: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            seen[path].append((args[0] if args else kwargs["hidden_states"]).shape[1])

        return LLAMA.loaded.submodule(path).register_forward_hook(hook, with_kwargs=True)

    handles = [watch(path) for path in paths]
    yield seen
    for handle in handles:
        handle.remove()


def test_runs_of_equal_tokens_that_nobody_changes_are_one_lane() -> None:
    tasks = [reading(HEAD, 0, 1), reading(output(1), 0), reading(HEAD, 0, 2, prompt=OTHER), reading(HEAD, 0, 5)]
    plan, lanes = planned(tasks)
    assert lanes == [0, 0, 1, 0]
    assert plan.lanes.prompts == (PROMPT, OTHER)
    assert shapes(plan, [0, 1]) == [(FROM_THE_BEGINNING, 0)] * 2
    assert plan.kept.tolist() == [1, 5, LENGTH + 2]


def test_a_changed_run_branches_at_the_block_and_position_of_its_write() -> None:
    where = [(block, position) for block in range(3) for position in (0, 4, -1)]
    plan, lanes = planned([writing(output(block), ALL, position) for block, position in where])
    assert shapes(plan, lanes) == [(block + 1, position % LENGTH) for block, position in where]
    trunk = set(range(len(plan.lanes.prompts))) - set(lanes)
    assert len(trunk) == 1
    assert set(plan.lanes.trunk.tolist()) == trunk


def test_a_write_inside_a_block_branches_before_that_block() -> None:
    inside = [writing(f"model.layers.1.{leaf}", ALL, 7) for leaf in ("input", "mlp.output", "self_attn.o_proj.output")]
    plan, lanes = planned([task for one in inside for task in differing(one, 3)])
    assert shapes(plan, lanes) == [(1, 7)] * 9


def test_a_run_with_several_writes_branches_at_the_first_block_and_position() -> None:
    late = Node("write", (1.0,), run=0, site=output(0), index=(ALL, 8))
    early = Node("write", (1.0,), run=0, site=output(1), index=(ALL, SliceArg(5, 7)))
    rest = (
        Node("read", run=0, site=HEAD),
        Node("getitem", (NodeRef(2), (0, -1))),
        Node("save", (NodeRef(3),), name="x"),
    )
    plan, lanes = planned(differing(one_run(late, early, *rest), 4))
    assert shapes(plan, lanes) == [(1, 5)] * 4


def test_a_clean_run_of_the_same_tokens_is_the_trunk() -> None:
    plan, lanes = planned([reading(HEAD, 0, -1), writing(output(2), ALL, 8)])
    assert lanes == [0, 1]
    assert plan.lanes.trunk.tolist() == [0, 0]
    assert computed([reading(HEAD, 0, -1), writing(output(2), ALL, 8)]) == LENGTH + 1


@pytest.mark.parametrize("task", [writing(output(2), ALL, 8), writing(output(0), ALL, 0), writing(output(1))])
def test_a_change_of_a_lone_run_has_no_trunk(task: Task) -> None:
    plan, lanes = planned([task, writing(output(1), ALL, 2, prompt=OTHER)])
    assert shapes(plan, lanes) == [(FROM_THE_BEGINNING, 0)] * 2
    assert computed([task]) == LENGTH


def test_branches_have_a_trunk_as_soon_as_they_save_more_than_it_costs() -> None:
    """Two branches after the first of three blocks (the end counts as a fourth) save 9 + 3 p each; a trunk costs 36."""
    for position, tokens in ((3, 2 * LENGTH), (4, LENGTH + 2 * (LENGTH - 4))):
        assert computed(differing(writing(output(0), ALL, position), 2)) == tokens


def test_a_trunk_that_only_lends_its_first_blocks_goes_no_further() -> None:
    with watched("model.layers.0", "model.layers.1") as seen:
        assert computed([writing(output(0), ALL, 0), writing(output(0))]) == 3 * LENGTH
    assert seen == {"model.layers.0": [LENGTH], "model.layers.1": [2 * LENGTH]}


@pytest.mark.parametrize(
    "index",
    [(0, (4, 6)), (ALL, SliceArg(None, None)), (), (0,), (..., 3), (None, 0, 4)],
    ids=["list", "all", "nothing", "no token", "width", "new axis"],
)
def test_a_write_of_which_the_positions_are_not_plain_starts_at_the_first(index: tuple[Arg, ...]) -> None:
    plan, lanes = planned(differing(writing(output(1), *index), 3))
    assert shapes(plan, lanes) == [(2, 0)] * 3


def test_a_computed_position_starts_at_the_first() -> None:
    nodes = (
        Node("arange", (4, 5)),
        Node("write", (0.0,), run=0, site=output(1), index=(0, NodeRef(0))),
        Node("read", run=0, site=HEAD),
        Node("save", (NodeRef(2),), name="x"),
    )
    plan, lanes = planned(differing(one_run(*nodes), 3))
    assert shapes(plan, lanes) == [(2, 0)] * 3
    assert computed(differing(one_run(*nodes), 3)) == 4 * LENGTH


def test_a_position_outside_the_run_starts_at_the_first() -> None:
    plan, lanes = planned(differing(writing(output(1), ALL, 99), 3))
    assert shapes(plan, lanes) == [(2, 0)] * 3


@pytest.mark.parametrize("site", ["model.embed_tokens.output", "model.rotary_emb.output"])
def test_a_write_before_the_blocks_is_there_from_the_beginning(site: str) -> None:
    index = (0, ALL, 4) if "rotary" in site else (ALL, 4)
    tasks = differing(writing(site, *index), 4)
    plan, lanes = planned(tasks)
    assert order(site) < MOMENTS.births[0]
    assert shapes(plan, lanes) == [(FROM_THE_BEGINNING, 0)] * 4
    assert sorted(lanes) == [0, 1, 2, 3]


def test_in_a_model_that_looks_ahead_a_write_changes_the_tokens_before_it() -> None:
    plan, lanes = planned(differing(writing(output(1), ALL, 7), 3), replace(MOMENTS, causal=False))
    assert shapes(plan, lanes) == [(2, 0)] * 3


def test_in_a_model_without_moments_every_changed_run_is_there_from_the_beginning() -> None:
    plan, lanes = planned(differing(writing(output(1), ALL, 7), 3), Moments())
    assert shapes(plan, lanes) == [(FROM_THE_BEGINNING, 0)] * 3
    assert plan.kept.size == 0


def test_what_is_read_before_the_start_of_a_branch_is_its_trunks() -> None:
    tasks = [*differing(writing(output(1), ALL, 6, seen=2), 3), writing(output(1), ALL, 6, seen=7)]
    plan, lanes = planned(tasks)
    trunk = int(plan.lanes.trunk[lanes[0]])
    first = plan.lanes.first
    assert plan.kept.tolist() == sorted([int(first[trunk]) + 2, int(first[lanes[3]]) + 7])
    assert int(plan.exit[trunk]) == HEAD_ORDER
    computed(tasks)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_patching_sweep_computes_its_trunk_and_the_tokens_from_each_position_on(name: str) -> None:
    subject = family(name)
    sites = subject.loaded.sites
    first = f"{blocks(subject.loaded)[0]}.output"
    item: tuple[Arg, ...] = (0,) if isinstance(sites.site(first).value, tuple) else ()
    layer = first.replace("0", "{layer}")
    nodes = (
        Node("read", run=0, site=layer),
        Node("getitem", (NodeRef(0), item)) if item else Node("clone", (NodeRef(0),)),
        Node("getitem", (NodeRef(1), (ALL, ParamRef("position")))),
        Node("write", (NodeRef(2),), run=1, site=layer, index=(*item, ALL, ParamRef("position"))),
        Node("read", run=1, site=f"{sites.head}.output"),
        Node("getitem", (NodeRef(4), (0, -1))),
        Node("save", (NodeRef(5),), name="x"),
    )
    other = tuple(token + 20 for token in PROMPT)
    params = {"layer": ParamType.INT, "position": ParamType.INT}
    graph = Graph(params, (Run("clean", other), Run("patched", PROMPT)), nodes)
    tasks = [Task(graph, {"layer": layer, "position": at}) for layer in range(3) for at in range(LENGTH)]
    assert computed(tasks, subject) == 2 * LENGTH + 3 * sum(LENGTH - at for at in range(LENGTH))


def test_a_run_leaves_after_the_last_site_at_which_it_is_needed() -> None:
    tasks = [reading(output(0), 0), reading(HEAD, 0, -1, prompt=OTHER), reading(output(1), 0, prompt=(1, 2))]
    plan, lanes = planned(tasks)
    assert plan.exit[lanes].tolist() == [order(output(0)), HEAD_ORDER, order(output(1))]
    assert plan.depth == HEAD_ORDER
    with watched(*(f"model.layers.{i}" for i in range(3))) as seen:
        computed(tasks)
    assert seen == {
        "model.layers.0": [LENGTH + 4 + 2],
        "model.layers.1": [4 + 2],
        "model.layers.2": [4],
    }


def test_a_run_needed_inside_a_block_stays_for_all_of_it() -> None:
    tasks = [reading("model.layers.1.mlp.input", 0), reading(HEAD, 0, -1, prompt=OTHER)]
    with watched("model.layers.1", "model.layers.2") as seen:
        computed(tasks)
    assert seen == {"model.layers.1": [LENGTH + 4], "model.layers.2": [4]}


def test_only_positions_that_are_needed_go_through_the_last_norm_and_the_head() -> None:
    tasks = [
        reading(HEAD, 0, -1),
        reading(HEAD, 0, SliceArg(2, 4)),
        reading(HEAD, 0, 1, prompt=OTHER),
        writing(output(1), ALL, 5),
        reading(output(2), 0, prompt=(7, 7, 7)),
    ]
    with watched("model.norm", "lm_head") as seen:
        computed(tasks)
    assert seen == {"model.norm": [5], "lm_head": [5]}


def test_a_read_of_all_positions_takes_all_of_them_through_the_head() -> None:
    with watched("lm_head") as seen:
        computed([reading(HEAD, 0), reading(HEAD, 0, 1, prompt=OTHER)])
    assert seen == {"lm_head": [LENGTH + 1]}


def test_a_write_after_the_blocks_counts_as_a_need_for_its_positions() -> None:
    tasks = [writing("model.norm.output", ALL, 3, seen=3), writing("model.norm.output", ALL, 2, seen=6)]
    with watched("lm_head") as seen:
        computed([*tasks, reading(HEAD, 0, 0)])
    assert seen == {"lm_head": [4]}


def test_a_pass_in_which_nobody_has_a_run_is_none() -> None:
    preparation = Preparation(LLAMA.loaded, solo=False, constants={})
    task = preparation.task(0, reading(HEAD, 0, -1))
    cohort = Cohort(task.program, [task.member], SURROUNDINGS)
    cohort.stage = 1
    assert plan_pass([cohort], preparation.routes, MOMENTS) is None
    cohort.stage, cohort.members = 0, []
    assert plan_pass([cohort], preparation.routes, MOMENTS) is None


def test_a_plan_says_who_has_something_to_do_where() -> None:
    plan, _ = planned([writing(output(1), ALL, 2), reading(output(1), 0), reading(HEAD, 0, 1)])
    assert {at: len(cohorts) for at, cohorts in plan.due.items()} == {order(output(1)): 2, HEAD_ORDER: 2}
