"""The verb dashboard: a link that logs a browser in."""

from __future__ import annotations

from typing import Annotated

import typer

from ndif_batch.cli.output import say, write_text
from ndif_batch.cli.serve import HOST, PORT


def dashboard(
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help=f"Where the browser finds the server on its host; else {PORT}."),
    ] = None,
) -> None:
    """Print a link to the dashboard that logs one browser in, once, within ten minutes."""
    from ndif_batch.client import Client
    from ndif_batch.queue.routes import LOGIN

    with Client() as client:
        settings = client.settings
        made = client.service.create_login(actor=settings.user)
        known = settings.url if settings.url.startswith("http") and port is None else f"http://{HOST}:{port or PORT}"
    write_text(f"{known}{LOGIN}?code={made.text}")
    say(f"it logs {made.record.user} in; a server must listen there: ndif-batch serve, and a tunnel from elsewhere")
