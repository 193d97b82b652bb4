"""Everything that can be known of a job is known, and everything that can be wrong is said, before it is queued."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from ndif_batch import blobs
from ndif_batch.client import Client
from ndif_batch.client.shapes import checked_tasks
from ndif_batch.errors import GraphError, ModelError, NotFoundError, ShapeError, SweepError, UsageError
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, TensorRef, Value
from ndif_batch.sweep.space import Axis, Rule, Space
from tests import toy


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return toy.client(tmp_path)


def grid(layers: int = 4, positions: int = 3, constants: Mapping[str, Value] | None = None) -> Space:
    axes = (Axis("layer", {"layer": range(layers)}), Axis("position", {"position": range(positions)}))
    return Space(axes, {"prompt": "the cat sat", "answer": "Paris", **(constants or {})})


def test_a_plan_has_arrays_tiles_sizes_and_tokens(client: Client) -> None:
    plan = client.prepare(toy.reading(), grid(), toy.NAME)
    residual, logit = plan.arrays
    assert (residual.name, residual.shape, residual.dims, residual.dtype) == (
        "residual",
        (6,),
        ("residual_0",),
        "float32",
    )
    assert (logit.name, logit.shape, logit.dims) == ("logit", (), ())
    assert plan.tasks == 12
    assert plan.tile == (4, 3)
    assert plan.shards == (range(12),)
    assert (plan.prompts.distinct, plan.prompts.tokens, plan.prompts.tokens_per_task) == (1, 36, 3)
    assert plan.bytes >= 12 * 7 * 4
    assert plan.files > 0
    assert plan.cost > 0


def test_an_error_of_one_task_names_what_it_binds(client: Client) -> None:
    with pytest.raises(ModelError, match=r"model\.layers\.4\.output.*task 12: layer=4, position=0"):
        client.prepare(toy.reading(), grid(layers=6), toy.NAME)
    with pytest.raises(ShapeError, match=r"position 3 is outside the 3 tokens of run 'only'.*layer=0, position=3"):
        client.prepare(toy.reading(), grid(positions=4), toy.NAME)


def test_a_wrong_parameter_name_has_the_nearest_one_as_its_hint(client: Client) -> None:
    with pytest.raises(SweepError) as caught:
        client.prepare(toy.reading(), grid(constants={"awnser": 3}), toy.NAME)
    assert "no parameter 'awnser'" in caught.value.message
    assert caught.value.hint == "did you mean 'answer'?"


def test_a_parameter_without_a_value_is_named(client: Client) -> None:
    with pytest.raises(SweepError, match="parameter 'answer' of the graph has no value"):
        client.prepare(toy.reading(), Space(grid().axes, {"prompt": "the cat sat"}), toy.NAME)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("answer", 1.5, "parameter 'answer' is of type int and cannot be 1.5"),
        ("answer", True, "parameter 'answer' is of type int and cannot be True"),
        ("prompt", 7, "parameter 'prompt' is of type prompt and cannot be 7"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(client: Client, name: str, value: Value, said: str) -> None:
    with pytest.raises(SweepError, match=said):
        client.prepare(toy.reading(), grid(constants={name: value}), toy.NAME)


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"answer": "Paris Rome"}, "parameter 'answer': 'Paris Rome' is 2 tokens"),
        ({"prompt": " "}, "the prompt of run 'only' has no tokens"),
        ({"prompt": "the " * 13}, "has 13 tokens; the model takes 12"),
        ({"prompt": (1, 50)}, "holds 50, which is no token id"),
    ],
)
def test_text_that_the_model_cannot_take_is_refused(client: Client, constants: dict[str, Value], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        client.prepare(toy.reading(), grid(constants=constants), toy.NAME)


def test_a_bad_prompt_in_the_middle_of_a_long_column_is_found(client: Client) -> None:
    prompts = ["the cat sat"] * 5000
    prompts[3217] = "the cat sat on the mat the dog ran far the cat ran"
    space = Space((Axis("prompt", {"prompt": prompts}),), {"layer": 0})
    with pytest.raises(ModelError, match="has 13 tokens"):
        client.prepare(toy.whole(), space, toy.NAME)


def test_an_unknown_model_has_the_nearest_one_as_its_hint(client: Client) -> None:
    with pytest.raises(NotFoundError, match="toi") as caught:
        client.prepare(toy.reading(), grid(), "toi")
    assert "toy" in str(caught.value.hint)


def test_a_graph_that_breaks_a_rule_is_refused(client: Client) -> None:
    graph = toy.reading()
    nothing = Graph(graph.params, graph.runs, graph.nodes[:2])
    with pytest.raises(GraphError, match="nothing is saved"):
        client.prepare(nothing, grid(), toy.NAME)


def test_what_depends_on_itself_is_refused_before_it_is_queued(client: Client) -> None:
    looped = Graph(
        {},
        (Run("only", (1, 2, 3)),),
        (
            Node("read", run=0, site="model.layers.2.output"),
            Node("write", (NodeRef(0),), run=0, site="model.layers.1.output"),
            Node("save", (NodeRef(0),), name="out"),
        ),
    )
    with pytest.raises(GraphError, match=r"node 0 .* needs node 1 .* \[cycle\]"):
        client.prepare(looped, Space((), {}), toy.NAME)


def test_prompts_of_different_length_make_a_ragged_array_of_the_longest(client: Client) -> None:
    space = Space((Axis("prompt", {"prompt": ["the cat", "the cat sat on the mat", "dog"]}),), {"layer": 1})
    plan = client.prepare(toy.whole(), space, toy.NAME)
    (residual,) = plan.arrays
    assert (residual.shape, residual.ragged, residual.dims) == ((6, 6), (0,), ("token", "hidden"))
    assert (plan.prompts.distinct, plan.prompts.tokens, plan.prompts.tokens_per_task) == (3, 9, 3)


def test_names_of_dimensions_must_fit_the_value(client: Client) -> None:
    graph = toy.whole()
    named = Graph(graph.params, graph.runs, (*graph.nodes[:2], Node("save", (NodeRef(1),), name="x", dims=("token",))))
    with pytest.raises(ShapeError, match=r"node 2 \(save\): 'x' has the shape \[3, 6\], which 1 names do not fit"):
        client.prepare(named, Space((), {"prompt": "the cat sat", "layer": 0}), toy.NAME)


def test_a_save_may_not_have_the_name_of_an_axis(client: Client) -> None:
    graph = toy.reading()
    renamed = (*graph.nodes[:2], Node("save", (NodeRef(1),), name="layer"), *graph.nodes[3:])
    with pytest.raises(UsageError, match="layer"):
        client.prepare(Graph(graph.params, graph.runs, renamed), grid(), toy.NAME)


def test_tasks_must_agree_in_the_number_of_dimensions(client: Client) -> None:
    graph = Graph(
        {"prompt": ParamType.PROMPT, "module": ParamType.STR},
        (Run("only", ParamRef("prompt")),),
        (
            Node("read", run=0, site="{module}.output"),
            Node("sum", (NodeRef(0),), (("dim", -1),)),
            Node("save", (NodeRef(0),), name="x"),
        ),
    )
    space = Space((Axis("module", {"module": ["model.layers.0", "lm_head"]}),), {"prompt": "the cat"})
    (array,) = client.prepare(graph, space, toy.NAME).arrays
    assert (array.shape, array.ragged) == ((1, 2, 50), (2,))


def test_the_seed_axis_is_no_parameter(client: Client) -> None:
    space = Space((*grid().axes, Axis("seed", {"seed": range(3)})), grid().constants)
    plan = client.prepare(toy.reading(), space, toy.NAME)
    assert plan.tasks == 36


def test_layers_with_equal_sites_and_prompts_of_equal_length_are_checked_once() -> None:
    prompts = Axis("prompt", {"prompt": [(1, 2, 3), (3, 2, 1), (1, 2)], "answer": [4, 4, 4]})
    space = Space((prompts, Axis("layer", {"layer": range(4)}), Axis("position", {"position": range(2)})))
    assert checked_tasks(toy.reading(), space, toy.site_map()) == [0, 1, 16, 17]


def test_a_layer_that_the_model_lacks_is_not_taken_for_an_equal_one() -> None:
    space = Space((Axis("layer", {"layer": range(6)}),), {"prompt": (1,), "position": 0, "answer": 1})
    assert checked_tasks(toy.reading(), space, toy.site_map()) == [0, 4, 5]


def test_more_tasks_than_can_be_checked_one_by_one_are_checked_at_the_corners() -> None:
    answers = Axis("pair", {"prompt": [(1, 2), (1, 2, 3)] * 2000, "answer": range(4000)})
    space = Space((answers, Axis("position", {"position": range(-2, 2)})), {"layer": 0})
    checked = checked_tasks(toy.reading(), space, toy.site_map())
    bound = [space.bindings(task) for task in checked]
    assert len(checked) == 8
    assert {(len(b["prompt"]), b["position"]) for b in bound if isinstance(b["prompt"], tuple)} == {
        (length, position) for length in (2, 3) for position in (-2, 1)
    }
    assert {b["answer"] for b in bound} == {0, 1, 3998, 3999}


def test_the_corners_of_a_large_space_still_catch_a_position_outside_a_short_prompt(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndif_batch.client.shapes.CHECKED_TASKS", 4)
    pairs = Axis("pair", {"prompt": ["the cat sat", "the cat"] * 3000, "answer": [i % 40 for i in range(6000)]})
    space = Space((pairs, Axis("position", {"position": range(3)})), {"layer": 0})
    with pytest.raises(ShapeError, match=r"position 2 is outside the 2 tokens of run 'only'.*prompt='the cat'"):
        client.prepare(toy.reading(), space, toy.NAME)


def test_constants_are_known_from_their_tensor_or_from_the_store(client: Client) -> None:
    vector = np.arange(toy.WIDTH, dtype=np.float32)
    digest = blobs.digest(blobs.encode(vector))
    graph = Graph(
        {"prompt": ParamType.PROMPT, "vector": ParamType.TENSOR},
        (Run("only", ParamRef("prompt")),),
        (
            Node("read", run=0, site="model.layers.0.output"),
            Node("add", (NodeRef(0), ParamRef("vector"))),
            Node("add", (NodeRef(1), TensorRef(digest))),
            Node("save", (NodeRef(2),), name="x"),
        ),
    )
    space = Space((), {"prompt": "the cat", "vector": TensorRef(digest)})
    with pytest.raises(NotFoundError, match=digest[:12]):
        client.prepare(graph, space, toy.NAME)
    plan = client.prepare(graph, space, toy.NAME, constants={digest: vector, "0" * 64: vector})
    assert list(plan.constants) == [digest]
    client.submit(plan)
    again = client.prepare(graph, space, toy.NAME)
    assert dict(again.constants) == {}
    assert again.stored == frozenset({digest})
    assert again.arrays == plan.arrays


def test_thousands_of_different_tasks_are_checked_within_seconds(client: Client) -> None:
    last = (ParamRef("position"), ParamRef("answer"))
    chain = (
        Node("read", run=0, site="lm_head.output"),
        Node("softmax", (NodeRef(0),), (("dim", -1),)),
        *(Node("mul", (NodeRef(1 + i), ParamRef("scale"))) for i in range(6)),
        Node("getitem", (NodeRef(7), (0, *last))),
        Node("save", (NodeRef(8),), name="x"),
    )
    graph = Graph({**toy.reading().params, "scale": ParamType.FLOAT}, toy.reading().runs, chain)
    axes = (Axis("scale", {"scale": [i / 7 for i in range(1024)]}), Axis("position", {"position": range(4)}))
    space = Space(axes, {"prompt": "the cat sat on", "layer": 0, "answer": 3})
    assert len(checked_tasks(graph, space, toy.site_map())) == 4096
    began = time.process_time()
    assert client.prepare(graph, space, toy.NAME).tasks == 4096
    assert time.process_time() - began < 3


def test_preparing_loads_neither_the_model_framework_nor_the_array_store(tmp_path: Path) -> None:
    toy.client(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from tests import toy; from ndif_batch import Client;"
        "from ndif_batch.sweep.space import Space;"
        f"client = Client(toy.settings(Path({str(tmp_path)!r})));"
        "plan = client.prepare(toy.whole(), Space((), {'prompt': 'the cat', 'layer': 0}), 'toy');"
        "assert plan.tasks == 1;"
        "print([name for name in ('torch', 'transformers', 'zarr', 'xarray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def without(layers: int, positions: int, *places: Mapping[str, Sequence[int]]) -> Space:
    made = grid(layers=layers, positions=positions)
    return Space(made.axes, made.constants, tuple(Rule(False, one) for one in places))


def test_a_point_that_is_excluded_may_be_one_that_cannot_run(client: Client) -> None:
    plan = client.prepare(toy.reading(), without(6, 4, {"layer": [4, 5]}, {"position": [3]}), toy.NAME)
    assert (plan.tasks, plan.excluded, len(plan.running)) == (24, 12, 12)
    with pytest.raises(ModelError, match=r"task 17: layer=4, position=1"):
        client.prepare(toy.reading(), without(6, 4, {"layer": [4], "position": [0]}, {"position": [3]}), toy.NAME)


def test_only_prompts_of_tasks_that_run_are_counted(client: Client) -> None:
    prompts = ["the", "the cat", "the cat sat", "the cat sat on the mat far"]
    axes = (Axis("layer", {"layer": range(4)}), Axis("prompt", {"prompt": prompts}))
    rules = (Rule(False, {"prompt": [3]}), Rule(False, {"prompt": [0], "layer": [1, 2]}))
    plan = client.prepare(toy.whole(), Space(axes, {}, rules), toy.NAME)
    assert (plan.prompts.distinct, plan.prompts.tokens) == (3, 2 * 1 + 4 * 2 + 4 * 3)
    assert plan.prompts.tokens_per_task == 3
    assert plan.arrays[0].shape == (3, toy.WIDTH)


def test_every_class_of_tasks_that_run_is_checked(client: Client) -> None:
    prompts = [" ".join(["the"] * length) for length in (1, 2, 5)]
    axes = (Axis("prompt", {"prompt": prompts}), Axis("layer", {"layer": range(4)}))
    space = Space(axes, {}, (Rule(False, {"prompt": [2]}), Rule(True, {"prompt": [2], "layer": [3]})))
    plan = client.prepare(toy.whole(), space, toy.NAME)
    assert plan.arrays[0].shape == (5, toy.WIDTH)
    assert plan.arrays[0].ragged == (0,)


def test_saves_that_are_not_kept_are_not_planned(client: Client) -> None:
    plan = client.prepare(toy.reading(), grid(), toy.NAME, save=["logit"])
    assert [array.name for array in plan.arrays] == ["logit"]
    with pytest.raises(GraphError, match="nothing is saved"):
        client.prepare(toy.reading(), grid(), toy.NAME, save=[])
