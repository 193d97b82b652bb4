"""Looking at an experiment without running it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from ndif_batch.errors import ModelError, ShapeError, TraceError
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.trace import LanguageModel, Trace, param


def reading(lm: LanguageModel) -> Trace:
    with lm.trace(param("prompt")) as t:
        h = lm.model.layers[param("layer")].output
        h[0, param("position")].save("vector", dims=("hidden",))
        h[0].half().save("all")
        (h.sum() > 0).save("flag")
    return t


def test_a_scan_gives_shape_and_dtype_of_everything_saved(lm: LanguageModel) -> None:
    assert reading(lm).scan(prompt=[1, 2, 3], layer=np.int64(2), position=-1) == {
        "vector": AbstractTensor((8,), "float32"),
        "all": AbstractTensor((3, 8), "float16"),
        "flag": AbstractTensor((), "bool"),
    }


def test_a_wrong_shape_names_the_node_and_the_line(lm: LanguageModel) -> None:
    with lm.trace([1, 2, 3]) as t:
        line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
        (lm.model.norm.output @ lm.lm_head.output).save("x")
    with pytest.raises(ShapeError, match=r"node 2 \(matmul\)") as caught:
        t.scan()
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(f"recorded at {__file__}:{line}")


def test_a_position_outside_of_the_prompt_names_the_run_and_the_line(lm: LanguageModel) -> None:
    with pytest.raises(ShapeError, match="position 3 is outside the 3 tokens of run 'prompt'") as caught:
        reading(lm).scan(prompt=[1, 2, 3], layer=0, position=3)
    assert f"recorded at {__file__}:" in str(caught.value)


def test_a_layer_that_the_model_does_not_have_is_a_model_error(lm: LanguageModel) -> None:
    with pytest.raises(ModelError, match=r"model\.layers\.9\.output"):
        reading(lm).scan(prompt=[1, 2, 3], layer=9, position=0)


def test_text_needs_a_tokenizer(lm: LanguageModel) -> None:
    with pytest.raises(ModelError, match="no tokenizer"):
        reading(lm).scan(prompt="the cat", layer=0, position=0)


def test_bindings_must_be_complete_and_known(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match=r"parameter 'position' has no value"):
        reading(lm).scan(prompt=[1], layer=0)
    with pytest.raises(TraceError, match=r"no parameter 'positon'(.|\n)*did you mean 'position'"):
        reading(lm).scan(prompt=[1], layer=0, position=0, positon=1)


def test_a_bound_tensor_has_its_own_shape(lm: LanguageModel) -> None:
    with lm.trace([1, 2]) as t:
        (lm.model.norm.output[0] @ param("directions", "tensor")).save("x")
    assert t.scan(directions=np.ones((8, 3), np.float32))["x"].shape == (2, 3)
    with pytest.raises(ShapeError, match="node 2"):
        t.scan(directions=np.ones((7, 3), np.float32))


def test_inside_a_scan_block_shapes_are_plain_and_nothing_is_kept(lm: LanguageModel) -> None:
    with lm.scan([1, 2, 3]):
        h = lm.model.layers[0].output
        assert h.shape == (1, 3, 8)
        assert h[:, :-1].shape[1] == 2
        assert lm.lm_head.output[0].argmax(-1).dtype == "int64"
    with lm.scan() as s:
        with s.invoke([1, 2]):
            h = lm.model.norm.output
        with s.invoke([1, 2, 3, 4]):
            assert lm.model.norm.output.shape == (1, 4, 8)
        assert h.shape == (1, 2, 8)


def test_a_scan_block_refuses_wrong_shapes_and_parameters(lm: LanguageModel) -> None:
    with pytest.raises(ShapeError, match="matmul"), lm.scan([1, 2, 3]):
        (lm.model.norm.output @ lm.lm_head.output).shape  # noqa: B018
    with pytest.raises(TraceError, match="a scan knows no parameters"), lm.scan([1, 2, 3]):
        lm.model.norm.output[:, param("p")].shape  # noqa: B018


def test_inside_a_scan_values_have_a_length_and_can_be_gone_through(lm: LanguageModel) -> None:
    with lm.scan([1, 2, 3]):
        hidden = lm.model.norm.output[0]
        assert len(hidden) == 3
        assert [row.shape for row in hidden] == [(8,)] * 3
