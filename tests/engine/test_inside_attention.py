"""Sites inside attention on every family that has them: reads and writes among neighbours, gradients, steps."""

import pytest
import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.errors import ModelError
from ndif_batch.graph.infer import infer
from ndif_batch.graph.nodes import Arg, Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.graph.sites import ATTENTION, SiteMap
from ndif_batch.sweep.task import Task
from tests.engine.test_gradient_memory import budget
from tests.engine.test_layout import changed, warmer
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


def check(subject: Subject, tasks: list[Task], engine: Engine | None = None) -> None:
    outcomes = sorted((engine or Engine(subject.loaded)).run(tasks), key=lambda outcome: outcome.index)
    for task, outcome in zip(tasks, outcomes, strict=True):
        assert outcome.error is None, (task, outcome.error)
        for save, value in oracle(subject, task).items():
            assert_equal(f"{task}", outcome.saves[save], value)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_oss", "bert", "roberta"])
def test_gradients_by_every_site_inside_attention_equal_the_oracle(name: str) -> None:
    subject = family(name)
    paths = owners(subject.loaded.sites)

    def task(path: str, prompt: tuple[int, ...]) -> Task:
        nodes = [Node("read", run=0, site=f"{path}.{site}") for site in ATTENTION]
        nodes += [
            Node("write", (0.3,), run=0, site=f"{path}.pattern", index=(0, 1, -1)),
            Node("read", run=0, site=f"{subject.loaded.sites.head}.output"),
            Node("getitem", (NodeRef(6), (0, -1, 4))),
            Node("backward", (NodeRef(7),)),
        ]
        for number, site in enumerate(ATTENTION):
            nodes += [Node("grad", (NodeRef(number), NodeRef(8))), Node("save", (NodeRef(len(nodes)),), name=site)]
        return Task(Graph({}, (Run("r", prompt),), tuple(nodes)))

    tasks = [task(path, prompt) for path in paths[:2] for prompt in (SAME, (8, 3, 3), SAME)]
    check(subject, tasks)
    with budget(1):
        check(subject, tasks)


def test_a_sweep_over_patterns_is_one_pass_and_each_node_is_carried_out_once_for_all() -> None:
    subject = family("llama")
    params = {"head": ParamType.INT, "at": ParamType.INT, "layer": ParamType.INT}
    nodes = (
        Node("read", run=0, site="model.layers.{layer}.self_attn.pattern"),
        Node("getitem", (NodeRef(0), (0, ParamRef("head"), ParamRef("at")))),
        Node(
            "write",
            (0.0,),
            run=1,
            site="model.layers.{layer}.self_attn.pattern",
            index=(0, EVERY, ParamRef("at")),
        ),
        Node("read", run=1, site="lm_head.output"),
        Node("getitem", (NodeRef(3), (0, -1))),
        Node("save", (NodeRef(1),), name="pattern"),
        Node("save", (NodeRef(4),), name="logits"),
    )
    graph = Graph(params, (Run("a", SAME), Run("b", SAME)), nodes)
    points = [(head, at, layer) for head in range(4) for at in (0, 2, -1) for layer in range(3)]
    tasks = [Task(graph, {"head": head, "at": at, "layer": layer}) for head, at, layer in points]
    engine = Engine(subject.loaded)
    check(subject, tasks, engine)
    assert engine.counters.passes == 1
    assert engine.counters.tokens == 4 + 3 * (4 + 2 + 1)


def test_weights_of_later_tokens_are_exactly_zero_and_rows_sum_to_one() -> None:
    subject = family("gemma2")
    (outcome,) = Engine(subject.loaded).run([reading("model.layers.0.self_attn.pattern", (5, 9, 2, 7, 1, 1))])
    pattern = outcome.saves["x"]
    seen = torch.ones(6, 6).tril().triu(-3).bool()
    assert (pattern[0, :, ~seen] == 0).all()
    assert (pattern[0, :, seen] > 0).all()
    torch.testing.assert_close(pattern.sum(-1), torch.ones(1, 4, 6))


def test_a_step_sees_the_keys_of_all_tokens_before() -> None:
    subject = family("gemma3_text")
    path = "model.layers.0.self_attn"
    steps = Node("steps", (4,), run=0)
    tasks = []
    for name in ATTENTION:
        read = Node("read", run=0, site=f"{path}.{name}", step=3)
        tasks.append(Task(Graph({}, (Run("r", SAME),), (steps, read, saved(1)))))
    check(subject, tasks)
    shapes = [infer(task.graph, subject.loaded.sites)[1].shape for task in tasks]  # type: ignore[union-attr]
    assert shapes == [(1, 4, 1, 12), (1, 2, 7, 12), (1, 2, 7, 12), (1, 4, 1, 7), (1, 1, 4, 12)]
    outcomes = sorted(Engine(subject.loaded).run(tasks), key=lambda outcome: outcome.index)
    assert [tuple(outcome.saves["x"].shape) for outcome in outcomes] == shapes


@pytest.mark.parametrize("name", ["key", "pattern"])
def test_keys_at_several_steps_are_refused_by_name(name: str) -> None:
    subject = family("llama")
    read = Node("read", run=0, site=f"model.layers.0.self_attn.{name}", step=SliceArg())
    graph = Graph({}, (Run("r", SAME),), (Node("steps", (2,), run=0), read, saved(1)))
    (outcome,) = Engine(subject.loaded).run([Task(graph)])
    assert f"model.layers.0.self_attn.{name}" in str(outcome.error)


def test_nan_inside_attention_is_that_tasks_alone() -> None:
    """Of a query that is NaN torch's kernel on a CPU makes numbers."""
    subject = family("llama")
    path, end = "model.layers.1.self_attn", "lm_head.output"
    poison = [writing(f"{path}.{name}", index_of(name, 2), float("nan"), end, SAME) for name in ATTENTION[1:]]
    well = [reading(f"{path}.pattern", SAME), reading(end, SAME)]
    outcomes = sorted(Engine(subject.loaded).run([*poison, *well]), key=lambda outcome: outcome.index)
    for task, outcome in zip(poison, outcomes[:4], strict=True):
        assert_equal(f"{task}", outcome.saves["x"], oracle(subject, task)["x"])
        assert torch.isnan(outcome.saves["x"]).all()
    for task, outcome in zip(well, outcomes[4:], strict=True):
        assert_equal("beside NaN", outcome.saves["x"], oracle(subject, task)["x"])


@pytest.mark.parametrize("name", NONE)
def test_a_family_whose_attention_is_its_own_says_so(name: str) -> None:
    sites = family(name).loaded.sites
    owner = next(path for path in sites.modules if path.endswith((".attn", "attention", "mixer")))
    with pytest.raises(ModelError, match=r"do not compute attention through transformers' AttentionInterface"):
        sites.site(f"{owner}.pattern")


def test_attention_with_a_keyword_of_unknown_meaning_keeps_its_sites_closed_and_says_why() -> None:
    sites = changed([warmer]).loaded.sites
    with pytest.raises(ModelError, match=r"cannot be replaced: rowed attention does not know \['temperature'\]"):
        sites.site("model.layers.0.self_attn.query")
