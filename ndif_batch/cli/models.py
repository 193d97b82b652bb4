"""The verbs model add, ls, show, load, evict, pin, rm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ndif_batch.cli.output import Format, Output, say, write_record, write_rows
from ndif_batch.cli.watching import watched

if TYPE_CHECKING:
    from ndif_batch.client import Client
    from ndif_batch.graph.sites import SiteValue

app = typer.Typer(help="The models that jobs may name.", no_args_is_help=True)

Models: TypeAlias = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of models.")]


@app.command()
def add(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A directory, a .gguf file, a hub id, or entry:NAME.")
    ],
    name: Annotated[str, typer.Option("--name", help="What jobs call it.")],
    dtype: Annotated[str, typer.Option("--dtype", help="In which precision it runs.")] = "float32",
    revision: Annotated[str | None, typer.Option("--revision", help="A commit of the hub.")] = None,
) -> None:
    """Bring a model into the model cache, that of the server if there is one, and let jobs use it.

    entry:NAME is a torch.nn.Module that an installed package registers under NAME in the entry point group
    ndif_batch.models: a function that returns the module and, by name, one example of each tensor that it takes.
    """
    from ndif_batch.client import Client

    with Client() as client:
        info = client.add_model(source, name, dtype=dtype, revision=revision)
    say(f"model {info.name} is ready: {info.dtype}, revision {info.revision}, in {info.directory}")


@app.command()
@watched
def ls(
    every: Annotated[bool, typer.Option("--all", "-a", help="Those that were removed, too.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List the models."""
    from ndif_batch.client import Client
    from ndif_batch.queue.wishes import pinned

    with Client() as client:
        workers, pins = client.service.workers(), pinned(client.service.settings())
        rows = [
            {
                "name": record.name,
                "dtype": record.dtype,
                "revision": record.revision,
                "workers": sum(w.model == record.name and w.stopped_at is None for w in workers),
                "pinned": pins.get(record.name, 0),
                "source": record.source,
            }
            for record in client.service.models()
            if every or record.enabled
        ]
    write_rows(rows, ("name", "dtype", "revision", "workers", "pinned", "source"), output)


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
    from ndif_batch.models.inputs import described

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
                **({} if info.sites.inputs is None else {"inputs": described(info.sites.inputs)}),
            },
            output,
        )
        return
    found = [site for path, site in info.sites.sites.items() if fnmatchcase(path, sites)]
    along = "tokens" if info.sites.inputs is None else "1"
    rows = [{"site": s.path, "shape": _shape(s.value, along), "refused": s.refused or ""} for s in found]
    write_rows(rows, ("site", "shape", "refused"), output)


@app.command()
def load(models: Models) -> None:
    """Have the scheduler start a pilot of models once, whether there is work for them or not."""
    from ndif_batch.client import Client

    with Client() as client:
        for name in models:
            client.service.load_model(name, actor=client.settings.user)
            say(f"a pilot loads model {name} as soon as there is room")


@app.command()
def pin(
    models: Models,
    pilots: Annotated[int, typer.Option("--pilots", min=0, help="How many; 0 ends the pin.")] = 1,
) -> None:
    """Have the scheduler keep pilots of models, whether there is work for them or not."""
    from ndif_batch.client import Client

    with Client() as client:
        for name in models:
            client.service.pin_model(name, pilots, actor=client.settings.user)
            say(f"{pilots} pilots of model {name} stay" if pilots else f"model {name} is not pinned")


@app.command()
def evict(models: Models) -> None:
    """Let every pilot of models end in good order, and end their pins. Work that waits starts new ones."""
    from ndif_batch.client import Client

    with Client() as client:
        for name in models:
            gone = _evicted(client, name)
            say(f"model {name}: {len(gone)} pilots are draining{': ' if gone else ''}{', '.join(gone)}")


def _evicted(client: Client, name: str) -> list[str]:
    if client.settings.url:
        return client.server.evict_model(name)
    from ndif_batch.launcher import open_launcher
    from ndif_batch.scheduler.orders import evict

    settings, cluster = client.settings, client.settings.cluster
    launcher = open_launcher(cluster.launcher, settings.pilots, cluster.gpus)
    return evict(client.queue, launcher, name, actor=settings.user, reason=f"evicted by {settings.user}")


@app.command()
def rm(models: Models) -> None:
    """Let no job name models any more. What their jobs saved stays, and so do their files."""
    from ndif_batch.client import Client

    with Client() as client:
        for name in models:
            removed = client.service.remove_model(name, actor=client.settings.user)
            say(f"model {name} is removed; its files are in {removed.path}")


def _shape(value: SiteValue, along: str) -> str:
    """A site's value as ``float32 [1, tokens, 576]``; ``along`` stands for the axis of the tokens."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"({', '.join(_shape(item, along) for item in value)})"
    sizes = ", ".join(along if size is None else str(size) for size in value.shape)
    return f"{value.dtype} [{sizes}]"
