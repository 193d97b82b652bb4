"""The catalogue: every job builds the graph that was frozen, and saves the shapes it promises on every family."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndif_batch.graph.nodes import ParamType
from ndif_batch.graph.serialize import canonical, digest, graph_from_json, graph_to_json
from ndif_batch.graph.sites import SiteMap
from ndif_batch.graph.validate import validate
from ndif_batch.trace import LanguageModel, Trace
from tests.site_maps import gpt2, info, llama, smollm2

ROOT = Path(__file__).parents[2]
JOBS = sorted(path for path in (ROOT / "jobs").glob("*.py"))
FREEZE = "NDIF_BATCH_FREEZE"

SMALL_LLAMA = llama(layers=3, width=8, mlp=16, keys=4, vocabulary=50, heads=2)
TOP = {"top_tokens": (5,), "top_log_probs": (5,)}
SHAPES = {
    "ablation": {"logit_diff": (), "zero": (2,), "mean": (2,), "resample": (2,)},
    "activation_patching": {"logit_diff": ()},
    "attribution_patching": {"attribution": (3, 4), "clean_logit_diff": (), "corrupted_logit_diff": ()},
    "attention_patterns": {"pattern": (2, 4, 4)},
    "cache_residuals": {"residual": (4, 8)},
    "causal_tracing": {"clean": (), "corrupted": (), "restored": ()},
    "component_patching": {"attention": (), "mlp": ()},
    "contrastive_activation_addition": {"logit_diff": (), **TOP},
    "difference_of_means": {"difference": (8,)},
    "direct_logit_attribution": {
        "logit_diff": (),
        "attention": (3,),
        "mlp": (3,),
        "rest": (3,),
        "embedding": (),
        "constant": (),
    },
    "function_vectors": {"vector": (8,), "plain": (), "answer_log_prob": ()},
    "head_ablation": {"logit_diff": (), "zero": (), "mean": ()},
    "head_patching": {"logit_diff": ()},
    "induction_scores": {"induction": (3, 2), "duplicate": (3, 2), "previous": (3, 2)},
    "integrated_gradients": {"attribution": (4,), "logit_diff": (), "baseline_logit_diff": ()},
    "logit_lens": {"target_log_prob": (), **TOP},
    "mean_ablation": {"logit_diff": (), "attention": (), "mlp": ()},
    "neuron_patching": {"clean_activation": (), "corrupted_activation": (), "logit_diff": ()},
    "patchscopes": {"answer_log_prob": (), **TOP},
    "path_patching": {"corrupted_logit_diff": (), "direct": (), "through": (), "total": ()},
    "probe_data": {"residual": (3, 8), "labels": ()},
    "representation_reading": {"score": (4,)},
    "sae_features": {"features": (4, 6)},
    "sae_splice": {"divergence": (4,), "unexplained": (4,), "active": (4,)},
    "sae_steering": {"activation": (4,), "answer_log_prob": (), **TOP},
    "steering": {"logit_diff": (), **TOP},
    "steering_generation": {"tokens": (24,), "along": (27,)},
    "transcoder": {"features": (4, 6), "unexplained": (4,), "divergence": (4,)},
    "tuned_lens": {"target_log_prob": (), **TOP},
}


def build(job: Path, sites: SiteMap) -> Trace:
    trace: Trace = runpy.run_path(str(job))["build"](LanguageModel(info(sites)))
    return trace


def frozen_text(graph: dict[str, Any]) -> str:
    """The JSON of a graph with one node a line."""
    runs, nodes = (",\n  ".join(map(json.dumps, graph[key])) for key in ("runs", "nodes"))
    head = f'{{"version": {graph["version"]},\n "params": {json.dumps(graph["params"])}'
    return f'{head},\n "runs": [\n  {runs}],\n "nodes": [\n  {nodes}]}}\n'


def values(trace: Trace) -> dict[str, Any]:
    places = {"layer": 1, "position": 2, "target_layer": 0, "target_position": 3, "sender": 0, "receiver": 2}
    places |= {"start": 1, "stop": 3, "neuron": 5, "feature": 4, "head": 1, "length": 2}
    numbers = {"scale": 0.5, "temperature": 0.7, "noise": 2.0, "value": 1.5, "label": 1.0}
    tensors = {
        "encoder": (8, 6),
        "encoder_bias": (6,),
        "decoder": (6, 8),
        "decoder_bias": (8,),
        "direction": (8,),
        "heads": (3, 2),
        "attention_mean": (8,),
        "mlp_mean": (8,),
        "down": (3, 8, 2),
        "up": (3, 2, 8),
        "bias": (3, 8),
    }
    given = {name: np.zeros(shape, dtype=np.float32) for name, shape in tensors.items()}
    others = {**places, **numbers, **given, "answer": 7, "distractor": 9, "target": 7}
    params = trace.graph.params
    return {name: [1, 2, 3, 4] if params[name] is ParamType.PROMPT else others[name] for name in params}


def test_the_catalogue_has_every_method_and_each_is_frozen() -> None:
    assert [job.stem for job in JOBS] == sorted(SHAPES)
    assert all(job.with_suffix(".json").is_file() for job in JOBS)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_builds_the_graph_that_was_frozen(job: Path) -> None:
    graph = build(job, smollm2()).graph
    frozen = job.with_suffix(".json")
    if os.environ.get(FREEZE):
        frozen.write_text(frozen_text(graph_to_json(graph)))
    known = graph_from_json(json.loads(frozen.read_text()))
    validate(known)
    assert canonical(graph) == canonical(known)


def test_another_process_builds_the_same_bytes() -> None:
    code = (
        "from ndif_batch.graph.serialize import digest;"
        "from tests.jobs.test_catalogue_frozen import JOBS, build, smollm2;"
        "print(*(digest(build(job, smollm2()).graph) for job in JOBS))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": str(ROOT)}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.split() == [digest(build(job, smollm2()).graph) for job in JOBS]


@pytest.mark.parametrize("sites", [SMALL_LLAMA, gpt2(heads=2)], ids=["llama", "gpt2"])
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_saves_the_shapes_it_promises_on_every_family(job: Path, sites: SiteMap) -> None:
    trace = build(job, sites)
    found = trace.scan(**values(trace))
    assert {name: tensor.shape for name, tensor in found.items()} == SHAPES[job.stem]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_says_its_source_parameters_and_saves(job: Path) -> None:
    module = runpy.run_path(str(job))
    graph = build(job, smollm2()).graph
    assert "Source" in module["__doc__"]
    for name in (*graph.params, *graph.saves()):
        assert f"``{name}``" in module["build"].__doc__
