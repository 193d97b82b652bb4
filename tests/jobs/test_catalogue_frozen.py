"""The catalogue: every job builds the graph that was frozen, and saves the shapes it promises on every family."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

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

SMALL_LLAMA = llama(layers=3, width=8, mlp=16, keys=4, vocabulary=50)
SHAPES = {
    "activation_patching": {"logit_diff": ()},
    "attribution_patching": {"attribution": (3, 4), "clean_logit_diff": (), "corrupted_logit_diff": ()},
    "cache_residuals": {"residual": (4, 8)},
    "integrated_gradients": {"attribution": (4,), "logit_diff": (), "baseline_logit_diff": ()},
    "logit_lens": {"target_log_prob": (), "top_tokens": (5,), "top_log_probs": (5,)},
    "patchscopes": {"answer_log_prob": (), "top_tokens": (5,), "top_log_probs": (5,)},
    "representation_reading": {"score": (4,)},
    "steering": {"logit_diff": (), "top_tokens": (5,), "top_log_probs": (5,)},
    "steering_generation": {"tokens": (24,), "along": (27,)},
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
    places = {"layer": 1, "position": 2, "target_layer": 0, "target_position": 3}
    others = {**places, "scale": 0.5, "temperature": 0.7, "answer": 7, "distractor": 9, "target": 7}
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


@pytest.mark.parametrize("sites", [SMALL_LLAMA, gpt2()], ids=["llama", "gpt2"])
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
