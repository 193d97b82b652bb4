"""What a trace hands to the backend that carries it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ndif_batch import blobs
from ndif_batch.errors import TraceError
from ndif_batch.graph.nodes import Graph, TensorRef, Value
from ndif_batch.models.info import ModelInfo
from ndif_batch.trace import LanguageModel, Trace, param
from tests.site_maps import info, llama

INFO = info(llama(layers=3, width=8, mlp=16, keys=4, vocabulary=50))


class Noted:
    """A backend that keeps what it is given."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def run(
        self,
        info: ModelInfo,
        graph: Graph,
        bindings: Mapping[str, Value],
        *,
        seed: int,
        constants: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        self.given = {"info": info, "graph": graph, "bindings": bindings, "seed": seed, "constants": constants}
        return {"x": 1}

    def submit(
        self,
        info: ModelInfo,
        graph: Graph,
        *,
        grid: Mapping[str, Sequence[Value]],
        zip: Mapping[str, Sequence[Value]],  # noqa: A002
        bindings: Mapping[str, Value],
        constants: Mapping[str, Any],
        **options: Any,
    ) -> str:
        self.given = {"grid": grid, "zip": zip, "bindings": bindings, "constants": constants, "options": options}
        return "job"


@pytest.fixture
def backend() -> Noted:
    return Noted()


@pytest.fixture
def t(backend: Noted) -> Trace:
    lm = LanguageModel(INFO, backend)
    with lm.trace(param("prompt")) as t:
        h = lm.model.layers[param("layer")].output[0, param("position")]
        (h @ param("direction", "tensor") * param("scale")).save("x")
    return t


def test_run_hands_over_graph_bindings_and_tensors(t: Trace, backend: Noted) -> None:
    direction = torch.ones(8)
    done = t.run(prompt=torch.tensor([1, 2]), layer=np.int64(1), position=-1, direction=direction, scale=2.5, seed=7)
    assert done == {"x": 1}
    digest = blobs.digest(blobs.encode(direction))
    assert backend.given["bindings"] == {
        "prompt": (1, 2),
        "layer": 1,
        "position": -1,
        "direction": TensorRef(digest),
        "scale": 2.5,
    }
    assert backend.given["graph"] is t.graph
    assert backend.given["info"] is INFO
    assert backend.given["seed"] == 7
    assert list(backend.given["constants"]) == [digest]
    assert t.constants == {}


def test_text_is_handed_over_as_text(t: Trace, backend: Noted) -> None:
    t.run(prompt="the cat", layer=1, position=-1, direction=np.ones(8), scale=1)
    assert backend.given["bindings"]["prompt"] == "the cat"


def test_submit_sorts_axes_constants_and_options(t: Trace, backend: Noted) -> None:
    job = t.submit(
        grid={"layer": range(30), "position": np.arange(3), "seed": range(2)},
        zip={"prompt": ["the cat", [1, 2]], "scale": [0.5, 1]},
        direction=np.ones(8),
        name="sweep",
        seed=3,
        hold=True,
    )
    assert job == "job"
    assert backend.given["grid"] == {"layer": range(30), "position": (0, 1, 2), "seed": range(2)}
    assert backend.given["zip"] == {"prompt": ("the cat", (1, 2)), "scale": (0.5, 1)}
    assert list(backend.given["bindings"]) == ["direction"]
    assert backend.given["options"] == {"name": "sweep", "seed": 3, "hold": True}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": 1}, "parameter 'prompt' has no value"),
        ({"grid": {"layer": range(2)}, "layer": 1}, "parameter 'layer' is given twice"),
        ({"grid": {"layr": range(2)}}, "no parameter 'layr'"),
        ({"grid": {"prompt": "abc"}, "layer": 1, "position": 0, "scale": 1, "direction": 1}, "are one, not several"),
    ],
)
def test_a_wrong_submission_is_refused_before_anything_is_sent(
    t: Trace, backend: Noted, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        t.submit(**given)
    assert backend.given == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("layer", [1, 2]), ("scale", None), ("prompt", 3), ("direction", object()), ("layer", torch.ones(1))],
)
def test_a_value_that_no_parameter_takes_is_refused(t: Trace, backend: Noted, name: str, value: Any) -> None:
    values = {"prompt": [1, 2], "layer": 1, "position": 0, "scale": 1.0, "direction": np.ones(8)}
    with pytest.raises(TraceError, match=f"parameter '{name}'.*cannot be"):
        t.run(**{**values, name: value})
    assert backend.given == {}


def test_a_vector_for_a_number_is_refused_without_printing_it_and_with_what_to_record(t: Trace) -> None:
    values: dict[str, Any] = {"prompt": [1, 2], "layer": 1, "position": 0, "direction": np.ones(8)}
    with pytest.raises(
        TraceError, match=r"parameter 'scale' of type float cannot be a tensor of shape \[576\]"
    ) as caught:
        t.submit(zip={"scale": [np.ones(576)]}, **values)
    assert caught.value.hint == 'record it as one: param("scale", "tensor")'


def test_a_model_without_a_backend_says_how_to_get_one() -> None:
    lm = LanguageModel(INFO)
    with lm.trace([1, 2]) as t:
        lm.model.norm.output.save("x")
    with pytest.raises(TraceError, match="only records"):
        t.run()
