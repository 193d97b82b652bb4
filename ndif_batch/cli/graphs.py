"""The verbs graph show and graph validate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ndif_batch.cli.output import say, write_text
from ndif_batch.errors import UsageError

if TYPE_CHECKING:
    from ndif_batch.graph.nodes import Graph

app = typer.Typer(help="Read and check intervention graphs.", no_args_is_help=True)

File: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="A graph in .json, or a .py with build(lm).")]
ForModel: TypeAlias = Annotated[str | None, typer.Option("--model", "-m", help="The model that a .py is traced on.")]


@app.command()
def show(
    file: File,
    model: ForModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="The graph's JSON, as `submit` takes it.")] = False,
) -> None:
    """Print a graph: a line for each parameter, run and node."""
    from ndif_batch.graph.serialize import graph_to_json
    from ndif_batch.graph.text import to_text

    graph = _graph(file, model)
    write_text(json.dumps(graph_to_json(graph), indent=1) if as_json else to_text(graph).removesuffix("\n"))


@app.command()
def validate(file: File, model: ForModel = None) -> None:
    """Check a graph against every rule that needs no model; print its digest."""
    from ndif_batch.graph.serialize import digest

    graph = _graph(file, model)
    write_text(digest(graph))
    say(f"{file} is valid: {len(graph.nodes)} nodes, {len(graph.runs)} runs, saves {', '.join(graph.saves())}")


def _graph(file: Path, model: str | None) -> Graph:
    from ndif_batch.cli.experiments import load_experiment, read_graph
    from ndif_batch.graph.validate import validate as check

    if file.suffix != ".py":
        graph = read_graph(file)
    elif model is None:
        raise UsageError(f"{file} is traced on a model", hint="name one: --model")
    else:
        from ndif_batch.client import Client

        with Client() as client:
            graph = load_experiment(file, lambda: client.language_model(model)).graph
    check(graph)
    return graph
