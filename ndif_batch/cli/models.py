"""The verbs model add, ls, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ndif_batch.cli.output import Format, Output, say, write_record, write_rows

if TYPE_CHECKING:
    from ndif_batch.graph.sites import SiteValue

app = typer.Typer(help="The models that jobs may name.", no_args_is_help=True)


@app.command()
def add(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A directory, a .gguf file, or a hub id.")],
    name: Annotated[str, typer.Option("--name", help="What jobs call it.")],
    dtype: Annotated[str, typer.Option("--dtype", help="In which precision it runs.")] = "float32",
    revision: Annotated[str | None, typer.Option("--revision", help="A commit of the hub.")] = None,
) -> None:
    """Bring a model into the model cache and let jobs use it."""
    from ndif_batch.client import Client

    with Client() as client:
        _ = client.queue
        info = client.add_model(source, name, dtype=dtype, revision=revision)
    say(f"model {info.name} is ready: {info.dtype}, revision {info.revision}, in {info.directory}")


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the models."""
    from ndif_batch.client import Client

    with Client() as client:
        workers = client.service.workers()
        rows = [
            {
                "name": record.name,
                "dtype": record.dtype,
                "revision": record.revision,
                "workers": sum(w.model == record.name and w.stopped_at is None for w in workers),
                "source": record.source,
            }
            for record in client.service.models()
        ]
    write_rows(rows, ("name", "dtype", "revision", "workers", "source"), output)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    sites: Annotated[
        str | None, typer.Option("--sites", metavar="PATTERN", help="List the sites that match, such as '*.5.*'.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show a model, or where graphs can read and write it."""
    from fnmatch import fnmatchcase

    from ndif_batch.client import Client

    with Client() as client:
        info = client.model_info(name)
    if sites is None:
        write_record(
            {
                "name": info.name,
                "source": info.source,
                "revision": info.revision,
                "digest": info.digest,
                "dtype": info.dtype,
                "directory": str(info.directory),
                "modules": len(info.sites.modules),
                "sites": len(info.sites.sites),
                "vocabulary": info.sites.vocabulary,
                "max_tokens": info.sites.max_tokens,
            },
            output,
        )
        return
    found = [site for path, site in info.sites.sites.items() if fnmatchcase(path, sites)]
    rows = [{"site": s.path, "shape": _shape(s.value), "refused": s.refused or ""} for s in found]
    write_rows(rows, ("site", "shape", "refused"), output)


def _shape(value: SiteValue) -> str:
    """A site's value as ``float32 [1, tokens, 576]``."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shape, value))})"
    sizes = ", ".join("tokens" if size is None else str(size) for size in value.shape)
    return f"{value.dtype} [{sizes}]"
