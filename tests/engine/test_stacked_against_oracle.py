"""Models that take tensors, runs of many images (and texts) stacked, against one run at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.layout import Arrangement
from ndif_batch.graph.nodes import Arg, Graph, Inputs, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.graph.sites import Site, SiteTensor, tensors_of
from ndif_batch.sweep.task import Task
from tests.families import Subject
from tests.oracle import assert_equal, oracle
from tests.pictures import CONFIGS, PLACES, OneAtATime, Sums, pictured, plain_module, prompts

WHOLE = SliceArg()
BLOCKS = {
    "vit": "vit.layers.{layer}.output",
    "dinov2": "encoder.layer.{layer}.output",
    "deit": "layers.{layer}.output",
    "clip": "vision_model.encoder.layers.{layer}.output",
    "siglip": "vision_model.encoder.layers.{layer}.output",
}
ENDS = {
    "vit": "classifier.output",
    "dinov2": "layernorm.output",
    "deit": "pooler.output",
    "clip": "visual_projection.output",
    "siglip": "vision_model.head.output",
}


def check(subject: Subject, tasks: Sequence[Task], constants: dict[str, torch.Tensor]) -> Engine:
    engine = Engine(subject.loaded)
    outcomes = {outcome.index: outcome for outcome in engine.run(tasks, constants=constants)}
    assert len(outcomes) == len(tasks)
    for index, task in enumerate(tasks):
        assert outcomes[index].error is None, outcomes[index].error
        truth = oracle(subject, task, constants)
        assert outcomes[index].saves.keys() == truth.keys()
        for name, value in truth.items():
            assert_equal(f"task {index}, {name}", outcomes[index].saves[name], value)
    return engine


def usable(subject: Subject) -> list[tuple[Site, tuple[int, ...], SiteTensor]]:
    sites = subject.loaded.sites.sites.values()
    return [(site, items, one) for site in sites if site.refused is None for items, one in tensors_of(site.value)]


def reading(subject: Subject, prompt: Inputs) -> Task:
    """Saves every tensor of every site."""
    nodes: list[Node] = []
    for number, (site, items, _) in enumerate(usable(subject)):
        nodes.append(Node("read", run=0, site=site.path))
        for item in items:
            nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), (item,))))
        nodes.append(Node("save", (NodeRef(len(nodes) - 1),), name=f"n{number}"))
    return Task(Graph({}, (Run("r", prompt),), tuple(nodes)))


def writing(site: Site, items: tuple[int, ...], one: SiteTensor, end: str, prompt: Inputs) -> Task:
    """Doubles the first number along each axis of a site but its first two, and turns its sign."""
    index: tuple[Arg, ...] = (WHOLE, *(0 for _ in one.shape[2:]))
    nodes = [Node("read", run=0, site=site.path)]
    for item in items:
        nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), (item,))))
    nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), index)))
    nodes.append(Node("mul", (NodeRef(len(nodes) - 1), -2.0)))
    nodes.append(Node("write", (NodeRef(len(nodes) - 1),), run=0, site=site.path, index=(*items, *index)))
    nodes.append(Node("read", run=0, site=end))
    nodes.append(Node("save", (NodeRef(len(nodes) - 1),), name="x"))
    return Task(Graph({}, (Run("r", prompt),), tuple(nodes)))


def patching(name: str) -> Graph:
    """Puts what one image has at a layer and a place into the run of another."""
    at = (WHOLE, ParamRef("place"))
    nodes = (
        Node("read", run=0, site=BLOCKS[name]),
        Node("getitem", (NodeRef(0), at)),
        Node("write", (NodeRef(1),), run=1, site=BLOCKS[name], index=at),
        Node("read", run=1, site=ENDS[name]),
        Node("save", (NodeRef(3),), name="end"),
    )
    params = {
        "one": ParamType.PROMPT,
        "other": ParamType.PROMPT,
        "layer": ParamType.INT,
        "place": ParamType.INT,
    }
    return Graph(params, (Run("one", ParamRef("one")), Run("other", ParamRef("other"))), nodes)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_site_of_every_family_is_the_runs_own(name: str) -> None:
    subject = pictured(name)
    images, constants = prompts(subject, 3)
    assert subject.loaded.layout.arrangement is Arrangement.STACKED, subject.loaded.layout.reason
    check(subject, [reading(subject, image) for image in images], constants)


@pytest.mark.parametrize(("name", "end"), [("vit", "classifier"), ("swin", "pooler"), ("resnet", "classifier.1")])
def test_what_is_written_at_any_site_changes_the_run_alone(name: str, end: str) -> None:
    subject = pictured(name)
    images, constants = prompts(subject, 2)
    found = [(site, items, one) for site, items, one in usable(subject) if one.dtype == "float32"]
    tasks = [
        writing(site, items, one, f"{end}.output", image)
        for number, (site, items, one) in enumerate(found)
        if len(one.shape) > 1 and (name == "vit" or number % 5 == 0)
        for image in images
    ]
    check(subject, tasks, constants)


@pytest.mark.parametrize("name", BLOCKS)
def test_patching_between_images(name: str) -> None:
    subject = pictured(name)
    images, constants = prompts(subject, 3)
    places = range(PLACES - (name == "siglip"))
    chosen = random.Random(3)
    tasks = [
        Task(patching(name), {"one": one, "other": other, "layer": layer, "place": chosen.choice(places)})
        for layer in range(3)
        for one in images[: 3 if name == "vit" else 2]
        for other in images[1:]
    ]
    engine = check(subject, tasks, constants)
    assert engine.counters.passes < len(tasks) / 3


def test_runs_leave_an_image_at_the_block_that_is_written_to() -> None:
    subject = pictured("vit")
    images, constants = prompts(subject, 2)
    assert [block.path for block in subject.loaded.layout.blocks] == [f"vit.layers.{i}" for i in range(3)]
    computed: list[int] = []
    handle = subject.loaded.submodule("vit.layers.0").register_forward_hook(
        lambda module, args, output: computed.append(output.shape[0])
    )
    graph = patching("vit")
    tasks = [Task(graph, {"one": images[0], "other": images[1], "layer": 2, "place": place}) for place in range(PLACES)]
    try:
        list(Engine(subject.loaded).run(tasks, constants=constants))
    finally:
        handle.remove()
    assert sum(computed) <= 3, "the first block sees each image, not each task"


def test_gradients_by_what_a_block_holds_and_by_the_patches() -> None:
    subject = pictured("vit")
    images, constants = prompts(subject, 3)
    nodes = (
        Node("read", run=0, site="vit.embeddings.output"),
        Node("read", run=0, site="vit.layers.1.output"),
        Node("read", run=0, site="classifier.output"),
        Node("getitem", (NodeRef(2), (0, ParamRef("label")))),
        Node("backward", (NodeRef(3),)),
        Node("grad", (NodeRef(0), NodeRef(4))),
        Node("grad", (NodeRef(1), NodeRef(4))),
        Node("mul", (NodeRef(5), NodeRef(0))),
        Node("sum", (NodeRef(7), -1)),
        Node("save", (NodeRef(8),), name="attribution"),
        Node("save", (NodeRef(6),), name="by_block"),
    )
    graph = Graph({"image": ParamType.PROMPT, "label": ParamType.INT}, (Run("r", ParamRef("image")),), nodes)
    tasks = [Task(graph, {"image": image, "label": label}) for image in images for label in range(5)]
    engine = check(subject, tasks, constants)
    assert engine.counters.passes < len(tasks)


def test_similarity_of_image_and_text_is_that_of_the_whole_model() -> None:
    subject = pictured("clip")
    pairs, constants = prompts(subject, 3)
    nodes = (
        Node("read", run=0, site="visual_projection.output"),
        Node("read", run=0, site="text_projection.output"),
        Node("cosine_similarity", (NodeRef(0), NodeRef(1)), (("dim", -1),)),
        Node("weight", site="logit_scale"),
        Node("exp", (NodeRef(3),)),
        Node("mul", (NodeRef(2), NodeRef(4))),
        Node("save", (NodeRef(5),), name="logits_per_image"),
    )
    tasks = [Task(Graph({}, (Run("r", pair),), nodes)) for pair in pairs]
    outcomes = {outcome.index: outcome for outcome in Engine(subject.loaded).run(tasks, constants=constants)}
    for index, pair in enumerate(pairs):
        with torch.no_grad():
            truth = subject.native(**{name: constants[digest] for name, digest in pair.digests.items()})
        assert_equal("logits", outcomes[index].saves["logits_per_image"], truth.logits_per_image[0])


def test_a_module_of_no_library_stacks_where_its_values_are_each_ones() -> None:
    subject = plain_module(Sums)
    layout = subject.loaded.layout
    assert layout.arrangement is Arrangement.STACKED
    assert {path for path, _ in layout.alone} == {"shared.output", "folded.input", "folded.output"}
    items, constants = prompts(subject, 4)
    check(subject, [reading(subject, item) for item in items], constants)
    changed = [writing(*at, "last.output", item) for at in usable(subject) if len(at[2].shape) > 1 for item in items]
    check(subject, changed, constants)


def test_a_module_that_takes_no_two_items_runs_them_alone() -> None:
    subject = plain_module(OneAtATime)
    assert subject.loaded.layout.arrangement is Arrangement.ALONE
    items, constants = prompts(subject, 3)
    two = Graph(
        {},
        (Run("a", items[0]), Run("b", items[1])),
        (
            Node("read", run=0, site="first.output"),
            Node("write", (NodeRef(0),), run=1, site="first.output"),
            Node("read", run=1, site="last.output"),
            Node("save", (NodeRef(2),), name="x"),
        ),
    )
    engine = check(subject, [reading(subject, item) for item in items] + [Task(two)], constants)
    assert engine.counters.passes == 5


def test_a_task_whose_tensors_are_wrong_fails_beside_one_that_runs() -> None:
    subject = pictured("clip")
    (one, other), constants = prompts(subject, 2)
    words = constants[other.digests["input_ids"]].clone()
    words[0, 1] = 1000
    wrong = Inputs.of({**other.digests, "input_ids": "f" * 64})
    constants["f" * 64] = words
    tasks = [reading(subject, one), reading(subject, wrong)]
    outcomes = {outcome.index: outcome for outcome in Engine(subject.loaded).run(tasks, constants=constants)}
    assert outcomes[1].error is not None
    assert "index 1000 is outside a dimension of size 97" in str(outcomes[1].error)
    assert outcomes[0].error is None
    truth = oracle(subject, tasks[0], constants)
    for name, value in truth.items():
        assert_equal(name, outcomes[0].saves[name], value)
