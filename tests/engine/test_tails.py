"""In the block in which a run ends, what comes after attention is computed for the positions that somebody needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from ndif_batch.engine.blocks import Moments, find_blocks
from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, Run, SliceArg
from ndif_batch.sweep.task import Task
from tests.families import ALL as EVERY
from tests.families import Subject, family
from tests.oracle import assert_equal, oracle

ALL = SliceArg()
LLAMA = family("llama")
PROMPT, OTHER = tuple(range(3, 12)), (40, 41, 42, 43)
LENGTH = len(PROMPT)
HEAD = "lm_head.output"


def inside(block: int, part: str) -> str:
    return f"model.layers.{block}.{part}"


def task(site: str, *index: Arg, prompt: tuple[int, ...] = PROMPT, **written: Arg) -> Task:
    """Reads a part of a site; each of ``written`` is a position at the output of a block of that number."""
    nodes = [
        Node("write", (float(number),), run=0, site=inside(int(block[1:]), "output"), index=(ALL, position))
        for number, (block, position) in enumerate(written.items(), 1)
    ]
    nodes += [
        Node("read", run=0, site=site),
        Node("getitem", (NodeRef(len(nodes)), index)),
        Node("save", (NodeRef(len(nodes) + 1),), name="x"),
    ]
    return Task(Graph({}, (Run("r", prompt),), tuple(nodes)))


def through(tasks: Sequence[Task], subject: Subject = LLAMA) -> dict[str, list[int]]:
    """How many tokens each part of each tail saw while the tasks ran together; they save what they do alone."""
    with watched(subject) as seen:
        for outcome in Engine(subject.loaded, max_batch_tokens=10_000).run(tasks):
            assert outcome.error is None, outcome.error
            for name, value in oracle(subject, tasks[outcome.index]).items():
                assert_equal(name, outcome.saves[name], value)
    return seen


@contextmanager
def watched(subject: Subject) -> Iterator[dict[str, list[int]]]:
    seen: dict[str, list[int]] = {}

    def watch(path: str) -> Any:
        return lambda module, args, output: seen.setdefault(path, []).append(args[0].shape[1])

    paths = [tail.path for block in subject.loaded.layout.blocks for tail in block.tail]
    handles = [subject.loaded.submodule(path).register_forward_hook(watch(path)) for path in paths]
    yield seen
    for handle in handles:
        handle.remove()


def llama(*counts: int) -> dict[str, list[int]]:
    """So many tokens in each block's tail."""
    return {inside(block, part): [count] for block, count in enumerate(counts) for part in ("self_attn.o_proj", "mlp")}


def test_the_tail_of_the_last_block_computes_what_is_read() -> None:
    tasks = [task(inside(1, "output"), 0, -1), task(inside(1, "output"), 0, SliceArg(2, 4), prompt=OTHER)]
    assert through(tasks) == llama(LENGTH + 4, 3)


def test_runs_that_go_on_keep_all_of_their_tokens() -> None:
    tasks = [task(inside(0, "output"), 0, 1), task(HEAD, 0, -1, prompt=OTHER)]
    assert through(tasks) == llama(1 + 4, 4, 1)


def test_what_is_read_before_the_last_block_needs_nothing_in_its_tail() -> None:
    assert through([task(inside(0, "output"), 0), task(HEAD, 0, 2)]) == llama(LENGTH, LENGTH, 1)


def test_a_read_inside_a_tail_counts_and_one_before_it_does_not() -> None:
    end = task(inside(1, "output"), 0, -1)
    assert through([end, task(inside(1, "mlp.down_proj.input"), 0, 3)]) == llama(LENGTH, 2)
    assert through([end, task(inside(1, "self_attn.o_proj.output"), 0, 3)]) == llama(LENGTH, 2)
    assert through([end, task(inside(1, "self_attn.o_proj.input"), 0)]) == llama(LENGTH, 1)
    assert through([end, task(inside(1, "input_layernorm.output"), 0)]) == llama(LENGTH, 1)


def test_a_read_of_nearly_all_positions_leaves_the_block_whole() -> None:
    assert through([task(inside(1, "output"), 0, SliceArg(1, None))]) == llama(LENGTH, LENGTH)


def test_a_branch_has_its_positions_and_its_trunk_none() -> None:
    tasks = [task(HEAD, 0, -1, b0=position) for position in (5, 6, 7, 8)]
    assert through(tasks) == llama(LENGTH, LENGTH + 4 + 3 + 2 + 1, 4)


def test_what_lies_before_a_branch_is_its_trunks() -> None:
    tasks = [task(HEAD, 0, 3, b0=position) for position in (5, 6, 7, 8)]
    assert through(tasks)[inside(2, "mlp")] == [1]


def test_a_trunk_has_the_tokens_with_which_a_branch_begins() -> None:
    tasks = [task(inside(1, "output"), 0, 7, b1=position) for position in (4, 6, 8)]
    assert through(tasks) == llama(LENGTH, len({4, 6, 7, 8}))
    further = [task(HEAD, 0, -1, b1=0), task(HEAD, 0, 4, b1=0, b2=1), task(HEAD, 0, 4, b1=0, b2=2)]
    through([*tasks, *further, task(inside(1, "mlp.output"), 0, 2)])


def test_branches_of_branches_find_their_tokens() -> None:
    tasks = [task(HEAD, 0, at, b0=position, b1=later) for position in (2, 5) for later in (1, 4, 7) for at in (-1, 3)]
    through(tasks)


def test_a_write_at_the_end_of_the_last_block_is_in_its_place() -> None:
    through([task(inside(1, "output"), 0, at, b1=position) for position in (0, 4) for at in (-1, 4, 0)])


@pytest.mark.parametrize("name", list(EVERY))
def test_a_family_ends_in_each_of_its_blocks(name: str) -> None:
    subject = family(name)
    sites, layout = subject.loaded.sites, subject.loaded.layout
    for number, path in enumerate(find_blocks(sites)):
        site = f"{path}.output"
        item: tuple[Arg, ...] = (0,) if isinstance(sites.site(site).value, tuple) else ()
        ends = [(prompt, at) for prompt in (PROMPT, OTHER) for at in (0, 3, -1)]
        seen = through([task(site, *item, 0, at, prompt=prompt) for prompt, at in ends], subject)
        for tail in layout.blocks[number].tail if layout.moments.tails else ():
            assert seen[tail.path] == [3 + 2]


def test_models_whose_blocks_cannot_be_told_have_no_tails() -> None:
    assert Moments().ends_in(5) < 0
    assert LLAMA.loaded.layout.moments.ends_in(LLAMA.loaded.sites.site(HEAD).order) == 2
