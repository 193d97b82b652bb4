"""The module tree: by attribute and index, with parameters, and with errors that name what exists."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ndif_batch.errors import ModelError, TraceError
from ndif_batch.graph.sites import Site, SiteMap, SiteTensor
from ndif_batch.trace import LanguageModel, param
from tests.families import family
from tests.recording import recorder
from tests.site_maps import Builder, info, llama, stream


def test_a_wrong_name_says_at_once_what_exists_and_what_is_nearest(lm: LanguageModel) -> None:
    with pytest.raises(ModelError) as caught:
        lm.model.layers[0].mpl  # noqa: B018
    text = str(caught.value)
    assert "test_trace_modules.py:" in text
    assert "model.layers.0 has no 'mpl'" in text
    assert "did you mean 'mlp'? There is self_attn, mlp, input_layernorm" in text


def test_a_number_outside_of_the_list_says_how_many_there_are(lm: LanguageModel) -> None:
    for number in (3, -4):
        with pytest.raises(ModelError, match=rf"model.layers has 3 modules; there is no number {number}"):
            lm.model.layers[number]


def test_modules_are_indexed_sliced_counted_and_looped_over(lm: LanguageModel) -> None:
    layers = lm.model.layers
    assert len(layers) == 3
    assert repr(layers[-1]) == repr(layers[2])
    assert [repr(layer) for layer in layers[1:]] == [repr(layers[1]), repr(layers[2])]
    with lm.trace([1, 2]) as t:
        for i, layer in enumerate(layers):
            layer.output[0, -1].save(f"layer{i}")
    assert [node.site for node in t.graph.nodes if node.op == "read"] == [f"model.layers.{i}.output" for i in range(3)]


def test_a_module_that_is_no_list_is_not_indexed(lm: LanguageModel) -> None:
    with pytest.raises(TraceError, match=r"model\.norm is no list of modules"):
        lm.model.norm[0]
    assert bool(lm.model.norm)


def test_hasattr_and_dir_answer(lm: LanguageModel) -> None:
    assert not hasattr(lm.model, "layer")
    assert {"embed_tokens", "layers", "norm", "trace"} <= {*dir(lm.model), "trace"}
    assert {"output", "input", "weight"} <= set(dir(lm.model.norm))


def test_what_is_inside_attention_is_read_and_written_like_any_site() -> None:
    lm = recorder(family("llama"))
    with lm.trace([1, 2, 3]) as t:
        attention = lm.model.layers[1].self_attn
        attention.query[:, 0] *= 2
        attention.pattern[0, :, -1].save("pattern")
        attention.heads[:, :, 2] = 0
    touched = [(node.op, str(node.site).rpartition(".")[2]) for node in t.graph.nodes if node.site is not None]
    assert touched == [("read", "query"), ("write", "query"), ("read", "pattern"), ("write", "heads")]
    assert t.scan()["pattern"].shape == (4, 3)


def test_a_module_whose_name_a_site_has_too_is_both() -> None:
    lm = recorder(family("bert"))
    attention = lm.bert.encoder.layer[0].attention.self
    assert repr(attention.query) == "<module bert.encoder.layer.0.attention.self.query>"
    with lm.trace([1, 2, 3]) as t:
        attention.query.save("site")
        attention.query.output.save("output")
        attention.query(attention.query.input).save("called")
        attention.query.weight.save("weight")
        attention.query.output = attention.query.output * 2
        attention.query *= 3
    own = "bert.encoder.layer.0.attention.self.query"
    sites = [(node.op, node.site) for node in t.graph.nodes if node.site is not None]
    assert [site for op, site in sites if op == "read"] == [own, f"{own}.output", f"{own}.input"]
    assert [site for op, site in sites if op == "write"] == [f"{own}.output", own]
    assert t.scan()["site"].shape == (1, 4, 3, 12)
    assert t.scan()["output"].shape == (1, 3, 48)


def test_attention_that_has_no_sites_inside_says_why() -> None:
    with pytest.raises(ModelError, match=r"do not compute attention through transformers' AttentionInterface"):
        recorder(family("bloom")).transformer.h[0].self_attention.query  # noqa: B018
    with pytest.raises(ModelError, match=r"computed in other modules, such as model\.layers\.0\.self_attn"):
        recorder(family("llama")).model.layers[0].pattern  # noqa: B018


def test_a_wrong_name_below_a_parameter_is_found_at_once(lm: LanguageModel) -> None:
    with lm.trace([1, 2]):
        block = lm.model.layers[param("layer")]
        with pytest.raises(ModelError, match=r"model\.layers\.\{layer\} has no 'attn'"):
            block.attn  # noqa: B018
        block.mlp.output.save("x")


def test_a_site_without_a_tensor_is_refused_with_the_reason(lm: LanguageModel) -> None:
    reason = r":\d+: site 'model.rotary_emb.output' cannot be used: it holds no tensor"
    with pytest.raises(ModelError, match=reason), lm.trace([1, 2]):
        lm.model.rotary_emb.output  # noqa: B018


def test_a_site_besides_input_and_output_is_reached_by_its_name() -> None:
    sites = llama(layers=2, width=8, mlp=16, keys=4, vocabulary=50)
    pattern = Site("model.layers.1.self_attn.pattern", 99, SiteTensor((1, 2, None, None), "float32"))
    lm = LanguageModel(info(replace(sites, sites={**sites.sites, pattern.path: pattern})))
    assert "pattern" in dir(lm.model.layers[1].self_attn)
    assert hasattr(lm.model.layers[0].self_attn, "pattern") is False


def test_a_child_called_output_is_reached_by_name() -> None:
    made = Builder()
    made.module("bert", stream(8), stream(8))
    made.module("bert.output", stream(8), stream(8))
    made.module("lm_head", stream(8), stream(50))
    lm = LanguageModel(info(made.site_map(50, 64, "lm_head")))
    with lm.trace([1, 2]) as t:
        lm.bert.output.save("site")
        lm.bert["output"].output.save("child")
    assert [node.site for node in t.graph.nodes if node.op == "read"] == ["bert.output", "bert.output.output"]


def test_weights_and_unknown_names_cannot_be_assigned(lm: LanguageModel) -> None:
    with lm.trace([1, 2]):
        with pytest.raises(TraceError, match=r"weight model\.norm\.weight cannot be written"):
            lm.model.norm.weight = 0.0
        with pytest.raises(ModelError, match=r"model\.norm has no 'outptu'.*\n.*'output'"):
            lm.model.norm.outptu = 0.0
        lm.model.norm.output.save("x")


def test_a_module_takes_one_value(lm: LanguageModel) -> None:
    with lm.trace([1, 2]):
        h = lm.model.norm.output.save("x")
        with pytest.raises(TraceError, match="lm_head takes one value, got 2"):
            lm.lm_head(h, h)
        with pytest.raises(TraceError, match="by position only"):
            lm.lm_head(input=h)


def families() -> dict[str, tuple[str, str, str, SiteMap]]:
    def tree(blocks: str, norm: str, head: str) -> SiteMap:
        made = Builder()
        for layer in range(2):
            made.module(f"{blocks}.{layer}", stream(8), stream(8))
        made.module(norm, stream(8), stream(8))
        made.module(head, stream(8), stream(50))
        parents = {".".join(path.split(".")[:i]) for path in made.modules for i in range(1, path.count(".") + 1)}
        return SiteMap(made.sites, (*sorted(parents), *made.modules), {}, 50, 64, head)

    rows = {
        "llama": ("model.layers", "model.norm", "lm_head"),
        "gpt2": ("transformer.h", "transformer.ln_f", "lm_head"),
        "gpt_neox": ("gpt_neox.layers", "gpt_neox.final_layer_norm", "embed_out"),
        "opt": ("model.decoder.layers", "model.decoder.final_layer_norm", "lm_head"),
        "phi": ("model.layers", "model.final_layernorm", "lm_head"),
        "gemma3": ("model.language_model.layers", "model.language_model.norm", "lm_head"),
    }
    return {name: (*row, tree(*row)) for name, row in rows.items()}


@pytest.mark.parametrize(("blocks", "norm", "head", "sites"), families().values(), ids=families())
def test_blocks_norm_and_unembedding_are_found(blocks: str, norm: str, head: str, sites: SiteMap) -> None:
    lm = LanguageModel(info(sites))
    found = [repr(module).split()[1].rstrip(">") for module in (lm.blocks, lm.final_norm, lm.unembedding)]
    assert found == [blocks, norm, head]


def test_a_model_without_blocks_says_where_they_were_looked_for() -> None:
    made = Builder()
    made.module("encoder", stream(8), stream(8))
    lm = LanguageModel(info(made.site_map(50, 64, "encoder")))
    with pytest.raises(ModelError, match=r"no blocks at model\.layers or transformer\.h"):
        lm.blocks  # noqa: B018


def test_residual_is_the_hidden_state_whatever_the_block_gives(lm: LanguageModel, tuples: LanguageModel) -> None:
    for model, index in ((lm, (0,)), (tuples, (0, 0))):
        with model.trace([1, 2, 3]) as t:
            model.blocks[1].residual[0] = 0.0
            model.blocks[1].residual += 1
            model.blocks[param("layer")].residual.save("h")
        writes = [node.index for node in t.graph.nodes if node.op == "write"]
        assert writes == [index, None if model is lm else (0,)]
        assert t.scan(layer=2)["h"].shape == (1, 3, 8)
