"""The site map: which axis is the tokens', in which order sites come, and which sites are refused."""

import pytest
from transformers import AutoConfig

from ndif_batch.errors import ModelError
from ndif_batch.graph.sites import SiteMap, SiteTensor
from ndif_batch.models.architecture import empty_model
from ndif_batch.models.probe import measure_empty
from tests.families import FAMILIES, TOKENS, family

GEMMA = measure_empty(empty_model(AutoConfig.for_model("gemma3_text", **FAMILIES["gemma3_text"], **TOKENS), "float32"))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_map_without_weights_is_the_map_of_the_loaded_model(name: str) -> None:
    empty = measure_empty(empty_model(AutoConfig.for_model(name, **FAMILIES[name], **TOKENS), "float32"))
    assert empty.to_json() == family(name).loaded.sites.to_json()


def test_the_tokens_axis_is_found_wherever_it_is() -> None:
    assert GEMMA.site("model.layers.0.output").value == SiteTensor((1, None, 48), "float32")
    assert GEMMA.site("model.layers.0.self_attn.q_norm.output").value == SiteTensor((1, 4, None, 12), "float32")
    assert GEMMA.site("lm_head.output").value == SiteTensor((1, None, 97), "float32")


def test_sites_come_in_the_order_of_execution() -> None:
    orders = [
        GEMMA.site(path).order
        for path in (
            "model.embed_tokens.output",
            "model.layers.0.input",
            "model.layers.0.self_attn.input",
            "model.layers.0.mlp.output",
            "model.layers.0.output",
            "model.layers.1.input",
            "model.norm.output",
            "lm_head.input",
            "lm_head.output",
        )
    ]
    assert orders == sorted(orders)


def test_a_module_that_is_called_again_in_the_same_pass_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError, match="called 2 times in one forward pass"):
        GEMMA.site("model.rotary_emb.output")


def test_a_wrong_path_has_the_nearest_one_as_its_hint() -> None:
    with pytest.raises(ModelError) as caught:
        GEMMA.site("model.layer.0.output")
    assert caught.value.hint == "did you mean 'model.layers.0.output'?"


def test_the_map_survives_json() -> None:
    assert SiteMap.from_json(GEMMA.to_json()) == GEMMA
