"""The verbs graph show and graph validate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ndif_batch.cli.forecast import BatchTokens, in_words, passes_record, write_efforts
from ndif_batch.cli.output import Format, Output, say, write_record, write_text
from ndif_batch.cli.submission import Constants, Grid, Zipped
from ndif_batch.errors import UsageError

if TYPE_CHECKING:
    from ndif_batch.cli.experiments import Experiment
    from ndif_batch.client import Client

app = typer.Typer(help="Read and check intervention graphs.", no_args_is_help=True)

File: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="A graph in .json, or a .py with build(lm).")]
ForModel: TypeAlias = Annotated[
    str | None, typer.Option("--model", "-m", help="The model that a .py is traced on, or that a plan is for.")
]


@app.command()
def show(
    file: File,
    model: ForModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="The graph's JSON, as `submit` takes it.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="What its passes compute, and what each means saves.")] = False,
    constants: Constants = None,
    grid: Grid = None,
    zipped: Zipped = None,
    batch_tokens: BatchTokens = None,
    output: Output = Format.TABLE,
) -> None:
    """Print a graph: a line for each parameter, run and node.

    With --plan, print what running it computes: of one task, or of all that --grid and --zip make of it. Each line adds
    one of the engine's means to those above it; the last is what is done. A token block is one token in one block of
    the model; bytes are those that blocks and head make on the way. With gradients: how often they go back through a
    pass, and through how many token blocks.
    """
    if plan:
        form = Format.JSON if as_json else output
        _show_plan(file, model, (constants or (), grid or (), zipped or ()), batch_tokens, form)
        return
    for given, option in ((constants, "--set"), (grid, "--grid"), (zipped, "--zip"), (batch_tokens, "--batch-tokens")):
        if given:
            raise UsageError(f"{option} says how a plan is made", hint="add --plan")
    from ndif_batch.graph.serialize import graph_to_json
    from ndif_batch.graph.text import to_text

    graph = _checked(file, model).graph
    write_text(json.dumps(graph_to_json(graph), indent=1) if as_json else to_text(graph).removesuffix("\n"))


@app.command()
def validate(file: File, model: ForModel = None) -> None:
    """Check a graph against every rule that needs no model; print its digest."""
    from ndif_batch.graph.serialize import digest

    graph = _checked(file, model).graph
    write_text(digest(graph))
    say(f"{file} is valid: {len(graph.nodes)} nodes, {len(graph.runs)} runs, saves {', '.join(graph.saves())}")


def _show_plan(
    file: Path,
    model: str | None,
    values: tuple[Sequence[str], Sequence[str], Sequence[str]],
    batch_tokens: int | None,
    output: Format,
) -> None:
    """What the passes over the tasks of these ``values`` (as ``submit`` takes them) compute."""
    from ndif_batch.cli.values import space_from
    from ndif_batch.client.forecast import forecast, weights_bytes

    if model is None:
        raise UsageError("what is computed depends on the model", hint="name one: --model")
    found = _checked(file, model)
    with _client() as client:
        space = space_from(found.graph.params, *values)
        planned = client.prepare(found.graph, space, model, constants=found.constants)
        passes = forecast(planned, batch_tokens or client.settings.max_batch_tokens)
        needs = passes_record(passes, weights_bytes(planned.model), client.service.tokens_per_second(model))
    record = {"tasks": planned.tasks, "unique_prompts": planned.prompts.distinct, **needs}
    if output is Format.TABLE:
        record = in_words(record, model)
        del record["efforts"]
        write_record({key.replace("_", " "): value for key, value in record.items()}, output)
        write_efforts(passes)
    else:
        write_record(record, output)


def _client() -> Client:
    from ndif_batch.client import Client

    return Client()


def _checked(file: Path, model: str | None) -> Experiment:
    from ndif_batch.cli.experiments import load_experiment
    from ndif_batch.graph.validate import validate as check

    if file.suffix == ".py" and model is None:
        raise UsageError(f"{file} is traced on a model", hint="name one: --model")
    with ExitStack() as stack:
        found = load_experiment(file, lambda: stack.enter_context(_client()).language_model(str(model)))
    check(found.graph)
    return found
