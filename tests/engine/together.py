"""What every rank of a split model runs for ``test_tensor_parallel.py``: rank 0 checks cases, the others follow.

``python -m tests.engine.together OUTPUT CASE...`` with torchrun's variables. OUTPUT gets, by case, what is wrong.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from transformers import AutoConfig

from ndif_batch.engine.distributed import fill, make_split
from ndif_batch.engine.engine import Engine, Outcome
from ndif_batch.engine.following import dismiss, follow, lead
from ndif_batch.engine.model import wrap
from ndif_batch.engine.ranks import Ranks, Seat
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.models.architecture import empty_model
from ndif_batch.sweep.task import Task
from tests.families import ALL, TOKENS, Subject
from tests.graphs import random_sweep, random_task
from tests.oracle import assert_equal, oracle

FAMILIES = ("llama", "qwen3", "phi3", "mixtral")
VOCABULARY = 96
BLOCK = "model.layers.1"
RUN = (Run("r", (1, 2, 3, 4)),)
MOST_TOKENS = 30
"""With more tokens in a pass the second rank of a case has no memory left."""


UNEVEN = "llama-uneven"


def config_of(name: str) -> Any:
    odd = {"intermediate_size": 97} if name == UNEVEN else {}
    family = name.partition("-")[0]
    return AutoConfig.for_model(family, **(ALL[family] | TOKENS | {"vocab_size": VOCABULARY} | odd))


def weight(name: str, empty: torch.Tensor) -> torch.Tensor:
    """Random numbers that are the same on every rank and every device."""
    if empty.ndim == 1:
        return empty.fill_(1)
    drawn = torch.empty(empty.shape, dtype=empty.dtype)
    return empty.copy_(drawn.normal_(0, 0.15, generator=torch.Generator().manual_seed(crc32(name.encode()))))


def subject(name: str, ranks: Ranks, device: torch.device) -> Subject:
    loaded = wrap(make_split(config_of(name), "float32", ranks, device, weight), ranks=ranks)
    native = empty_model(config_of(name), "float32")
    fill(native, lambda path, empty: torch.device("cpu"), weight)
    return Subject(loaded, native)


def outcomes(found: Subject, tasks: Sequence[Task]) -> list[Outcome]:
    return sorted(Engine(found.loaded).run(tasks), key=lambda outcome: outcome.index)


def check(found: Subject, tasks: Sequence[Task]) -> int:
    """Compares what tasks save with what they save alone; how many saves."""
    saves = 0
    for outcome in outcomes(found, tasks):
        try:
            truth = oracle(found, tasks[outcome.index])
        except (IndexError, RuntimeError, ValueError):
            continue
        assert outcome.error is None, outcome.error
        for name, value in truth.items():
            assert_equal(f"task {outcome.index}, {name}", outcome.saves[name], value)
            saves += 1
    return saves


def read(site: str, *index: Arg) -> Graph:
    nodes = [Node("read", run=0, site=site)]
    if index:
        nodes.append(Node("getitem", (NodeRef(0), index)))
    return Graph({}, RUN, (*nodes, Node("save", (NodeRef(len(nodes) - 1),), name="x")))


def random_graphs(found: Subject) -> None:
    sites = found.loaded.sites
    tasks = [random_task(seed, sites) for seed in range(30)]
    assert check(found, [*tasks, *(task for seed in range(6) for task in random_sweep(seed, sites, 4))]) > 100


def split_values_are_read_whole(found: Subject) -> None:
    sites = [f"{BLOCK}.{name}" for name in ("self_attn.q_proj.output", "mlp.down_proj.input", "mlp.act_fn.output")]
    assert set(sites) <= set(found.loaded.split.axes if found.loaded.split else ())
    assert check(found, [Task(read(site)) for site in sites]) == len(sites)


def split_weights_and_modules_are_whole(found: Subject) -> None:
    def called(site: str, module: str) -> Task:
        nodes = (Node("read", run=0, site=site), Node("call", (NodeRef(0),), site=module))
        return Task(Graph({}, RUN, (*nodes, Node("save", (NodeRef(1),), name="x"))))

    weights = [
        Task(Graph({}, RUN, (Node("weight", site=path), Node("save", (NodeRef(0),), name="x"))))
        for path in (f"{BLOCK}.self_attn.o_proj.weight", f"{BLOCK}.mlp.up_proj.weight", "model.norm.weight")
    ]
    calls = [
        called(f"{BLOCK}.output", "lm_head"),
        called(f"{BLOCK}.mlp.down_proj.input", f"{BLOCK}.mlp.down_proj"),
        called(f"{BLOCK}.mlp.input", f"{BLOCK}.mlp.up_proj"),
    ]
    assert check(found, [*weights, *calls]) == len(weights) + len(calls)


def a_lens_over_many_tasks(found: Subject) -> None:
    nodes = (
        Node("read", run=0, site="model.layers.{layer}.output"),
        Node("call", (NodeRef(0),), site="model.norm"),
        Node("call", (NodeRef(1),), site="lm_head"),
        Node("save", (NodeRef(2),), name="logits"),
    )
    graph = Graph({"layer": ParamType.INT, "prompt": ParamType.PROMPT}, (Run("r", ParamRef("prompt")),), nodes)
    tasks = [Task(graph, {"layer": i % 3, "prompt": (i, 2, 3 + i)}) for i in range(9)]
    assert check(found, tasks) == len(tasks)


def nan_in_one_rank_s_heads_is_seen_by_all(found: Subject) -> None:
    """The last head is the last rank's: what it holds must not pass through a branch into its neighbours."""

    def written(value: float, site: str, position: int) -> Task:
        nodes = (
            Node("write", (value,), run=0, site=site, index=(0, position, -1)),
            Node("read", run=0, site="lm_head.output"),
            Node("save", (NodeRef(1),), name="x"),
        )
        return Task(Graph({}, RUN, nodes))

    site = f"{BLOCK}.self_attn.v_proj.output"
    assert check(found, [written(float("nan"), site, 2), written(0.5, site, 1), written(float("inf"), site, 3)]) == 3


def an_error_is_its_task_s_own(found: Subject) -> None:
    tasks = [Task(read(f"{BLOCK}.output", 0, position)) for position in (1, 40, 2)]
    found_outcomes = outcomes(found, tasks)
    assert [outcome.error is None for outcome in found_outcomes] == [True, False, True]
    assert check(found, [tasks[0], tasks[2]]) == 2


def what_is_not_whole_anywhere_is_refused_by_name(found: Subject) -> None:
    """Of 97 neurons no two ranks have equally many."""
    sites = [f"{BLOCK}.mlp.act_fn.output", f"{BLOCK}.mlp.output"]
    refused, well = outcomes(found, [Task(read(site)) for site in sites])
    assert sites[0] in str(refused.error)
    assert "not whole" in str(refused.error)
    assert_equal("x", well.saves["x"], oracle(found, Task(read(sites[1])))["x"])


def gradients_are_refused_and_their_neighbours_are_well(found: Subject) -> None:
    site = f"{BLOCK}.output"
    nodes = (
        Node("read", run=0, site=site),
        Node("read", run=0, site="lm_head.output"),
        Node("getitem", (NodeRef(1), (0, -1, 3))),
        Node("backward", (NodeRef(2),)),
        Node("grad", (NodeRef(0), NodeRef(3))),
        Node("save", (NodeRef(4),), name="x"),
    )
    refused, well = outcomes(found, [Task(Graph({}, RUN, nodes)), Task(read(site))])
    assert "split over processes computes no gradients" in str(refused.error)
    assert_equal("x", well.saves["x"], oracle(found, Task(read(site)))["x"])


def a_pass_that_breaks_on_one_rank_is_halved_by_all(found: Subject) -> None:
    """See :func:`scarce`: the second rank has memory for few tokens; the task that is too long alone fails alone."""
    graph = Graph(
        {"prompt": ParamType.PROMPT, "position": ParamType.INT},
        (Run("r", ParamRef("prompt")),),
        (
            Node("read", run=0, site=f"{BLOCK}.mlp.down_proj.input"),
            Node("getitem", (NodeRef(0), (SliceArg(), ParamRef("position")))),
            Node("save", (NodeRef(1),), name="x"),
            Node("read", run=0, site="lm_head.output"),
            Node("save", (NodeRef(3),), name="logits"),
        ),
    )
    lengths = [4, 7, 12, 9, MOST_TOKENS + 5, 3, 8, 11]
    tasks = [
        Task(graph, {"prompt": tuple((n + i) % 90 for i in range(length)), "position": n % 3})
        for n, length in enumerate(lengths)
    ]
    whole = [n for n, length in enumerate(lengths) if length <= MOST_TOKENS]
    found_outcomes = outcomes(found, tasks)
    assert [n for n, outcome in enumerate(found_outcomes) if outcome.error is None] == whole
    assert "on rank 1: OutOfMemoryError" in str(found_outcomes[4].error)
    for n in whole:
        for name, value in oracle(found, tasks[n]).items():
            assert_equal(f"task {n}, {name}", found_outcomes[n].saves[name], value)


def scarce(found: Subject, rank: int) -> None:
    """Lets one rank run out of memory, in an MLP that has no counterpart, in a pass with many tokens."""
    inner = found.loaded.submodule(f"{BLOCK}.mlp.act_fn")

    def out_of_memory(module: Any, args: Any) -> None:
        if args[0].shape[1] > MOST_TOKENS:
            raise torch.OutOfMemoryError("nothing is left")

    if rank == 1:
        inner.register_forward_pre_hook(out_of_memory)


def a_rank_that_is_gone_ends_the_others(found: Subject) -> None:
    """See :func:`mortal`."""
    outcomes(found, [Task(read(f"{BLOCK}.output"))])
    raise AssertionError("the pass came to an end")


def mortal(found: Subject, rank: int) -> None:
    """Lets one rank end in the middle of a pass."""
    if rank == 1:
        found.loaded.submodule(BLOCK).register_forward_pre_hook(lambda module, args: os._exit(3))


Case = Callable[[Subject], None]
CASES: dict[str, tuple[str, Case, Callable[[Subject, int], None] | None]] = {
    **{f"random_graphs-{name}": (name, random_graphs, None) for name in FAMILIES},
    **{
        case.__name__: ("llama", case, None)
        for case in (
            split_values_are_read_whole,
            split_weights_and_modules_are_whole,
            a_lens_over_many_tasks,
            nan_in_one_rank_s_heads_is_seen_by_all,
            an_error_is_its_task_s_own,
            gradients_are_refused_and_their_neighbours_are_well,
        )
    },
    what_is_not_whole_anywhere_is_refused_by_name.__name__: (
        UNEVEN,
        what_is_not_whole_anywhere_is_refused_by_name,
        None,
    ),
    a_pass_that_breaks_on_one_rank_is_halved_by_all.__name__: (
        "llama",
        a_pass_that_breaks_on_one_rank_is_halved_by_all,
        scarce,
    ),
    a_rank_that_is_gone_ends_the_others.__name__: ("llama", a_rank_that_is_gone_ends_the_others, mortal),
}
"""By name: the family, what rank 0 checks, and what is done to the model before."""


def loads(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The models to load, and the cases of each; one that was tampered with serves no other case."""
    untouched: dict[str, list[str]] = {}
    for name in names:
        family, _, before = CASES[name]
        if before is None:
            untouched.setdefault(family, []).append(name)
        else:
            yield family, [name]
    yield from untouched.items()


def main(output: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    seat = Seat.of(os.environ)
    assert seat is not None
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(seat.rank)
    device = torch.device("cuda", seat.rank) if on_cuda else torch.device("cpu")
    ranks = Ranks(seat, device)
    wrong: dict[str, str | None] = {}
    with ranks.watched():
        for family, cases in loads(names):
            found = subject(family, ranks, device)
            before = CASES[cases[0]][2]
            if before is not None:
                before(found, seat.rank)
            if seat.rank:
                follow(found.loaded)
                continue
            lead(found.loaded)
            for name in cases:
                try:
                    CASES[name][1](found)
                    wrong[name] = None
                except Exception:  # noqa: BLE001  the test tells it
                    wrong[name] = traceback.format_exc()
            dismiss(found.loaded)
    if not seat.rank:
        output.write_text(json.dumps(wrong))
    ranks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
