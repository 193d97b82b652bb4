"""What a sweep's passes will compute, as a record and as a table of what each of the engine's means saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ndif_batch.cli.output import size, write_table, write_text

if TYPE_CHECKING:
    from ndif_batch.client.forecast import PassForecast


BatchTokens: TypeAlias = Annotated[
    int | None, typer.Option("--batch-tokens", min=1, help="The most tokens of a pass; 2048 is what a CPU takes.")
]
HEADS = {
    "token_blocks": "token blocks",
    "positions": "head positions",
    "nodes": "nodes run",
    "backwards": "ways back",
    "blocks_back": "blocks back",
}


def passes_record(forecast: PassForecast, weights: int, tokens_per_second: float | None) -> dict[str, Any]:
    """The fields that a plan has beside those of a submission; ``weights`` are the bytes of the model's.

    GPU-seconds are None unless it is known how many tokens go through the model in one.
    """
    first, last = list(forecast.efforts.values())[:: len(forecast.efforts) - 1]
    needs = {
        "passes": last.passes,
        "tokens": last.tokens,
        "tokens_without_sharing": first.tokens,
        "gpu_seconds": None if tokens_per_second is None else round(last.tokens / tokens_per_second, 3),
        "peak_bytes": weights + forecast.bytes,
    }
    efforts = {step: asdict(effort) for step, effort in forecast.efforts.items()}
    return {
        **needs,
        "planned_tasks": forecast.planned_tasks,
        "batch_tokens": forecast.batch_tokens,
        "assumed_layout": forecast.layout,
        "model_layers": forecast.layers,
        "graph_nodes": forecast.nodes[0],
        "computed_nodes": forecast.nodes[1],
        "passes_of_a_task": forecast.stages,
        "pass_bytes": forecast.bytes,
        "efforts": efforts,
    }


def in_words(record: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The same for a reader: sizes with their units, and why something is not known."""
    unknown = f"unknown: no worker of {model} has run lately"
    sizes = {name: f"{record[name]} ({size(record[name])})" for name in ("peak_bytes", "pass_bytes")}
    seconds = record["gpu_seconds"]
    return {**record, **sizes, "gpu_seconds": unknown if seconds is None else seconds}


def write_efforts(forecast: PassForecast) -> None:
    """A line for each of the engine's means, added to those above it; gradients only where there are any."""
    back = ("backwards", "blocks_back") if any(effort.backwards for effort in forecast.efforts.values()) else ()
    columns = ("passes", "tokens", "layers", "token_blocks", "positions", *back, "bytes", "nodes")
    rows = [
        [step, *(_shown(name, getattr(effort, name)) for name in columns)] for step, effort in forecast.efforts.items()
    ]
    write_text("")
    write_table(rows, ("with", *(HEADS.get(name, name) for name in columns)))


def _shown(name: str, number: float) -> str:
    return size(int(number)) if name == "bytes" else str(number)
