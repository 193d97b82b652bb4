"""The verb serve."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ndif_batch.cli.output import say
from ndif_batch.errors import UsageError

HOST, PORT = "127.0.0.1", 8080


def serve(
    path: Annotated[
        Path | None, typer.Option("--socket", metavar="PATH", help="Listen at a Unix socket, in a folder of mode 700.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help=f"A loopback address; {HOST} if not given.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help=f"{PORT} if not given; 0 takes a free one.")
    ] = None,
    with_scheduler: Annotated[bool, typer.Option("--with-scheduler", help="Run a scheduler beside it.")] = False,
) -> None:
    """Serve the queue, the archives and metrics over HTTP, to who has a token, until told to end (SIGTERM, SIGINT)."""
    from ndif_batch.config import load_settings

    if path is not None and (host is not None or port is not None):
        raise UsageError("--socket goes without --host and --port")
    try:
        from ndif_batch.server import process
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed", hint="pip install 'ndif-batch[server]'") from None
    with ExitStack() as stack:
        if path is None:
            listener = stack.enter_context(process.listening_on(host or HOST, PORT if port is None else port))
        else:
            listener = stack.enter_context(process.listening(path.absolute()))
        url = process.where(listener)
        say(f"NDIF_BATCH_URL={url}")
        at = f" --port {listener.getsockname()[1]}" if url.startswith("http") else ", with a tunnel to this socket"
        say(f"for a browser, a link that logs in once: ndif-batch dashboard{at}")
        process.run(load_settings(), listener, with_scheduler=with_scheduler)
