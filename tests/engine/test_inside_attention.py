"""Sites inside attention on every family that has them: reads and writes among neighbours, gradients, steps."""

import pytest

from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, Run, SliceArg
from ndif_batch.graph.sites import ATTENTION, SiteMap
from ndif_batch.sweep.task import Task
from tests.families import ALL, Subject, family
from tests.oracle import assert_equal, oracle

NONE = ("gptj", "gpt_neo", "bloom", "falcon", "mamba")
"""Families that do not compute attention through transformers' interface."""
INSIDE = [name for name in ALL if name not in NONE]
SAME = (5, 9, 2, 7)
PROMPTS = (SAME, (8, 3, 3))
EVERY = SliceArg()


def owners(sites: SiteMap) -> list[str]:
    """The modules that compute attention."""
    return [path.rpartition(".")[0] for path in sites.sites if path.endswith(".pattern")]


def reading(site: str, prompt: tuple[int, ...], *then: Node) -> Task:
    return Task(Graph({}, (Run("r", prompt),), (Node("read", run=0, site=site), *then, saved(len(then)))))


def saved(node: int) -> Node:
    return Node("save", (NodeRef(node),), name="x")


def writing(site: str, index: tuple[Arg, ...], value: Arg, end: str, prompt: tuple[int, ...]) -> Task:
    nodes = (Node("write", (value,), run=0, site=site, index=index), Node("read", run=0, site=end), saved(1))
    return Task(Graph({}, (Run("r", prompt),), nodes))


def index_of(name: str, position: Arg) -> tuple[Arg, ...]:
    """A position of one head, or of all."""
    if name == "heads":
        return EVERY, position, 1
    return (EVERY, 0, position) if name == "key" else (EVERY, EVERY, position)


def swapping(site: str, name: str, end: str) -> Task:
    """Heads of one run, in another order, in place of those of the next."""
    nodes = (
        Node("read", run=0, site=site),
        Node("flip", (NodeRef(0),), (("dims", (2 if name == "heads" else 1,)),)),
        Node("write", (NodeRef(1),), run=1, site=site),
        Node("read", run=1, site=end),
        Node("read", run=1, site=site),
        Node("sum", (NodeRef(4),)),
        Node("add", (NodeRef(3), NodeRef(5))),
        saved(6),
    )
    return Task(Graph({}, (Run("a", SAME), Run("b", SAME)), nodes))


def tasks_of(sites: SiteMap) -> list[Task]:
    tasks = []
    end = f"{sites.head}.output"
    for number, name in enumerate(ATTENTION):
        owner = owners(sites)[number % 3]
        site = f"{owner}.{name}"
        for prompt in PROMPTS:
            tasks.append(reading(site, prompt))
            tasks.append(writing(site, index_of(name, len(prompt) - 1 - number % 2), 0.25, end, prompt))
        tasks.append(writing(site, index_of(name, SliceArg(1, 3)), 0.5, f"{owner}.heads", SAME))
        tasks.append(swapping(site, name, end))
    return [*tasks, *(reading(end, prompt, Node("getitem", (NodeRef(0), (0, -1)))) for prompt in PROMPTS)]


@pytest.mark.parametrize("name", INSIDE)
def test_reads_and_writes_among_neighbours_equal_the_oracle(name: str) -> None:
    subject = family(name)
    check(subject, tasks_of(subject.loaded.sites))


def check(subject: Subject, tasks: list[Task]) -> None:
    outcomes = sorted(Engine(subject.loaded).run(tasks), key=lambda outcome: outcome.index)
    for task, outcome in zip(tasks, outcomes, strict=True):
        assert outcome.error is None, (task, outcome.error)
        for save, value in oracle(subject, task).items():
            assert_equal(f"{task}", outcome.saves[save], value)
