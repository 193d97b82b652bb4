"""What an archive tells about its job: enough to know what it is and to run it again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ndif_batch.graph.nodes import Graph, NodeRef, ParamRef, Value
from ndif_batch.models.tokenizer import Tokenizer
from ndif_batch.queue.records import JobRecord, ModelRecord
from ndif_batch.sweep.space import Space

PACKAGES = ("ndif-batch", "torch", "transformers", "numpy", "zarr")


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and with what a worker computes."""

    host: str
    device: str
    layout: str

    def attributes(self) -> dict[str, Any]:
        """As the archive keeps it, with the versions of the packages that shape the numbers."""
        versions = {package: found for package in PACKAGES if (found := _version(package)) is not None}
        return {
            "runtime": {
                "host": self.host,
                "device": self.device,
                "layout": self.layout,
                "python": platform.python_version(),
                "versions": versions,
            }
        }


def job_attributes(
    job: JobRecord, model: ModelRecord, graph: Graph, space: Space, tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """What is known of a job before it runs: the same on every worker, as the archive's identity requires."""
    attributes = {
        "job": {
            "id": job.id,
            "name": job.name,
            "user": job.user,
            "seed": job.seed,
            "options": job.options,
            "submitted_at": job.submitted_at.isoformat(),
        },
        "graph": job.graph,
        "graph_digest": job.graph_digest,
        "space": job.space,
        "model": {
            "name": model.name,
            "source": model.source,
            "revision": model.revision,
            "digest": model.digest,
            "dtype": model.dtype,
        },
    }
    known = {"tokens": prompt_tokens(graph, space.constants, tokenizer), "generated": generated_saves(graph)}
    return attributes | {name: found for name, found in known.items() if found is not None}


def generated_saves(graph: Graph) -> list[str] | None:
    """The saves that hold the tokens which a run has generated, and nothing else; ``None`` if there is none."""
    found = [
        str(node.name)
        for node in graph.nodes
        if node.op == "save" and isinstance(node.args[0], NodeRef) and graph.nodes[node.args[0].node].op == "tokens"
    ]
    return found or None


def prompt_tokens(graph: Graph, constants: Mapping[str, Value], tokenizer: Tokenizer | None) -> list[str] | None:
    """The text of each token of the first run's prompt, if no axis varies it and the model has a tokenizer."""
    if not graph.runs or tokenizer is None:
        return None
    prompt = graph.runs[0].prompt
    value = constants.get(prompt.param) if isinstance(prompt, ParamRef) else prompt
    if isinstance(value, str):
        value = tokenizer.encode(value)
    return tokenizer.pieces(value) if isinstance(value, tuple) else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
