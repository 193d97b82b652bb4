"""Encoder-decoders: prompts are the encoder's, the decoder begins with its start token; against one run at a time."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from ndif_batch import Client
from ndif_batch.engine.engine import Engine
from ndif_batch.engine.layout import Arrangement
from ndif_batch.engine.model import wrap
from ndif_batch.errors import ModelError
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run, SliceArg
from ndif_batch.graph.sites import tensors_of
from ndif_batch.models.architecture import empty_model
from ndif_batch.models.probe import measure_empty
from ndif_batch.models.tokenizer import concrete
from ndif_batch.queue import schema
from ndif_batch.sweep.task import Task
from tests import toy
from tests.families import TOKENS, VOCABULARY, Subject
from tests.oracle import assert_equal, oracle

WHOLE = SliceArg()
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", {"d_model": 24, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_heads": 4}),
    "bart": (
        "BartForConditionalGeneration",
        {
            "d_model": 24,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 32,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
        },
    ),
}
BLOCKS = {"t5": ("encoder.block", "decoder.block"), "bart": ("model.encoder.layers", "model.decoder.layers")}
PROMPTS = ((5, 9, 2, 7, 30), (8, 3, 3, 60, 11), (5, 9, 2), (40,))


def random_model(name: str) -> Any:
    torch.manual_seed(7)
    kind, sizes = SIZES[name]
    factory: Any = getattr(transformers, kind)
    start = {"decoder_start_token_id": 0} | sizes
    model = factory(factory.config_class(**{**TOKENS, **start}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5)
    return model.train(False)


@cache
def subject(name: str) -> Subject:
    model = random_model(name)
    native = deepcopy(model)
    return Subject(wrap(model), native)


def check(name: str, tasks: list[Task]) -> Engine:
    engine = Engine(subject(name).loaded)
    outcomes = {outcome.index: outcome for outcome in engine.run(tasks)}
    for index, task in enumerate(tasks):
        assert outcomes[index].error is None, outcomes[index].error
        for save, value in oracle(subject(name), task).items():
            assert_equal(f"task {index}, {save}", outcomes[index].saves[save], value)
    return engine


def reading(path: str, prompt: tuple[int, ...]) -> Task:
    nodes = (Node("read", run=0, site=path), Node("save", (NodeRef(0),), name="x"))
    return Task(Graph({}, (Run("r", prompt),), nodes))


def reading_all(name: str, side: str, prompt: tuple[int, ...]) -> Task:
    """Saves every tensor of every site whose path begins with ``side``."""
    nodes: list[Node] = []
    for site in subject(name).loaded.sites.sites.values():
        for items, _ in tensors_of(site.value) if site.refused is None and site.path.startswith(side) else ():
            nodes.append(Node("read", run=0, site=site.path))
            for item in items:
                nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), (item,))))
            nodes.append(Node("save", (NodeRef(len(nodes) - 1),), name=f"n{len(nodes)}"))
    assert nodes
    return Task(Graph({}, (Run("r", prompt),), tuple(nodes)))


@pytest.mark.parametrize("name", SIZES)
def test_every_site_is_the_runs_own(name: str) -> None:
    check(name, [reading_all(name, side, prompt) for side in (*BLOCKS[name], "lm_head") for prompt in PROMPTS])


@pytest.mark.parametrize("name", SIZES)
def test_what_is_patched_into_the_encoder_reaches_the_decoder(name: str) -> None:
    encoder, _ = BLOCKS[name]
    nested = isinstance(subject(name).loaded.sites.sites[f"{encoder}.0.output"].value, tuple)
    items = (0,) if nested else ()
    at = (*items, WHOLE, ParamRef("position"))
    nodes = [Node("read", run=0, site=f"{encoder}.{{layer}}.output")]
    nodes += [Node("getitem", (NodeRef(0), (0,)))] if nested else []
    nodes.append(Node("getitem", (NodeRef(len(nodes) - 1), (WHOLE, ParamRef("position")))))
    nodes.append(Node("write", (NodeRef(len(nodes) - 1),), run=1, site=f"{encoder}.{{layer}}.output", index=at))
    nodes.append(Node("read", run=1, site="lm_head.output"))
    nodes.append(Node("save", (NodeRef(len(nodes) - 1),), name="logits"))
    params = {
        "one": ParamType.PROMPT,
        "other": ParamType.PROMPT,
        "layer": ParamType.INT,
        "position": ParamType.INT,
    }
    graph = Graph(params, (Run("one", ParamRef("one")), Run("other", ParamRef("other"))), tuple(nodes))
    pairs = [(PROMPTS[0], PROMPTS[1]), (PROMPTS[2], PROMPTS[0])]
    bound = [{"one": one, "other": other} for one, other in pairs]
    check(name, [Task(graph, {**pair, "layer": layer, "position": -1}) for pair in bound for layer in range(2)])


@pytest.mark.parametrize("name", SIZES)
def test_runs_of_equal_length_go_through_the_encoder_together(name: str) -> None:
    loaded = subject(name).loaded
    assert loaded.layout.arrangement is Arrangement.ROWS
    encoder, decoder = BLOCKS[name]
    prompts = [(5, 9, 2, number) for number in range(8)]
    assert check(name, [reading(f"{encoder}.1.input", prompt) for prompt in prompts]).counters.passes == 1
    assert check(name, [reading(f"{decoder}.1.input", prompt) for prompt in prompts]).counters.passes == 8


@pytest.mark.parametrize("name", SIZES)
def test_the_site_map_without_weights_knows_both_sides(name: str) -> None:
    config = random_model(name).config
    config.architectures = [SIZES[name][0]]
    sites = measure_empty(empty_model(config, "float32"))
    _, decoder = BLOCKS[name]
    ours, measured = (one.sites[f"{decoder}.1.input"].value for one in (sites, subject(name).loaded.sites))
    assert ours == measured
    assert sites.decoder_start == {"t5": 0, "bart": 2}[name]
    assert sites.vocabulary == VOCABULARY
    generating = Graph(
        {},
        (Run("r", (5, 9)),),
        (Node("steps", (2,), run=0), Node("tokens", run=0), Node("save", (NodeRef(1),), name="x")),
    )
    with pytest.raises(ModelError, match="encoder-decoders generate nothing"):
        concrete(generating, {}, None, sites)
    [outcome] = Engine(subject(name).loaded).run([Task(generating)])
    assert "encoder-decoders generate nothing" in str(outcome.error)


def test_text_goes_into_the_encoder_of_a_model_that_was_added(tmp_path: Path) -> None:
    settings = toy.settings(tmp_path)
    schema.upgrade(settings.database)
    (source := tmp_path / "source").mkdir()
    model = random_model("t5")
    model.save_pretrained(source)
    toy.write_tokenizer(source)
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with Client(settings) as client:
        client.add_model(str(source), "tiny-t5")
        lm = client.language_model("tiny-t5")
        with lm.trace("the cat sat") as t:
            lm.encoder.block[1].layer[0].SelfAttention.q.output[0, -1].save("last")
            lm.lm_head.output[0, 0].save("logits")
        saves = t.run()
    ids = torch.tensor([[toy.WORDS.index(word) for word in ("the", "cat", "sat")]])
    with torch.no_grad():
        truth = model(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
    assert saves["last"].shape == (24,)
    assert_equal("logits", saves["logits"], truth)
