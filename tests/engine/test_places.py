"""Runs in a pack are as alone for models that look at the whole token axis: long frequencies, numbered tokens."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.graph.nodes import Graph, Node, NodeRef, ParamRef, ParamType, Run
from ndif_batch.sweep.task import Task
from tests.families import GROUPED, HEADS, Subject, random_subject
from tests.oracle import assert_equal, oracle

SHORT = 8
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": SHORT,
    "short_factor": [1.0] * 6,
    "long_factor": [1.0, 2.0, 3.0, 4.0, 6.0, 8.0],
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "dynamic": ("llama", {**GROUPED, "max_position_embeddings": SHORT, "rope_parameters": DYNAMIC}),
    "longrope": ("phi3", {**GROUPED, "original_max_position_embeddings": SHORT, "rope_parameters": LONGROPE}),
    "temperature": (
        "llama4_text",
        {
            **HEADS,
            "intermediate_size_mlp": 96,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "no_rope_layers": [1, 0, 0],
            "floor_scale": 40,
            "attn_scale": 1.0,
        },
    ),
}
LENGTHS = (3, 30, 8, 9, 20, 4, 30)


def subject(name: str) -> Subject:
    family, sizes = MODELS[name]
    return random_subject(family, **sizes)


def doubled() -> Graph:
    """A token's residual after the first block is doubled; all logits are saved."""
    nodes = (
        Node("read", run=0, site="model.layers.0.output"),
        Node("getitem", (NodeRef(0), (0, ParamRef("position")))),
        Node("mul", (NodeRef(1), ParamRef("by"))),
        Node("write", (NodeRef(2),), run=0, site="model.layers.0.output", index=(0, ParamRef("position"))),
        Node("read", run=0, site="lm_head.output"),
        Node("save", (NodeRef(4),), name="logits"),
    )
    params = {"prompt": ParamType.PROMPT, "position": ParamType.INT, "by": ParamType.FLOAT}
    return Graph(params, (Run("run", ParamRef("prompt")),), nodes)


def tasks() -> list[Task]:
    """Prompts of every length, short and long ones beside each other; of each a run as it is and two branches."""
    graph, draw = doubled(), torch.Generator().manual_seed(3)
    prompts = [tuple(torch.randint(3, 97, (length,), generator=draw).tolist()) for length in LENGTHS]
    changes = ((0, 1.0), (1, 2.0), (-1, 2.0))
    return [
        Task(graph, {"prompt": prompt, "position": position, "by": by}, 0)
        for prompt in prompts
        for position, by in changes
    ]


@pytest.mark.parametrize("name", MODELS)
def test_a_run_in_company_is_as_it_would_be_alone_in_a_new_model(name: str) -> None:
    one = subject(name)
    assert one.loaded.layout.packed, one.loaded.layout
    assert len(one.loaded.layout.blocks) == 3
    given = tasks()
    engine = Engine(one.loaded)
    for _ in range(2):
        outcomes = sorted(engine.run(given), key=lambda outcome: outcome.index)
        assert engine.counters.passes <= 2, "they went together"
        for task, outcome in zip(given, outcomes, strict=True):
            assert outcome.error is None
            alone = oracle(replace(one, native=deepcopy(one.native)), task)
            assert_equal(f"{name}, {task.bindings}", outcome.saves["logits"], alone["logits"])


@pytest.mark.parametrize("name", MODELS)
def test_the_models_do_tell_long_packs_from_short_runs(name: str) -> None:
    """Without what keeps runs apart these models give other values: what is tested above is not nothing."""
    native = subject(name).native
    short, long = torch.arange(3, 8)[None], torch.arange(3, 63)[None]
    with torch.no_grad():
        alone = native.model(input_ids=short, use_cache=False).last_hidden_state
        ids = torch.cat([long, short], 1)
        positions = torch.cat([torch.arange(60), torch.arange(5)])[None]
        beside = native.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[:, 60:]
    assert (alone - beside).abs().max() > 1e-3
