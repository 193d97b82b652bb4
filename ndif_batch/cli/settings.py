"""The verb config show."""

from __future__ import annotations

import os

import typer

from ndif_batch.cli.output import Format, Output, write_rows

app = typer.Typer(help="The settings.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `show` a verb of its own while it is the only one."""


@app.command()
def show(output: Output = Format.TABLE) -> None:
    """Show every setting, its value, and the variable that changes it."""
    from ndif_batch.config import Settings, load_settings

    settings = load_settings()
    derived = {"database_url": settings.database, "archive_dir": str(settings.archive)}
    rows = []
    for name in Settings.model_fields:
        variable = f"NDIF_BATCH_{name.upper()}"
        given = settings.model_fields_set
        if name == "cluster":
            own, parts = settings.cluster.model_fields_set, {**dict(settings.cluster), "folder": settings.pilots}
            rows += [_row(f"cluster.{part}", value, variable, part in own) for part, value in parts.items()]
        else:
            rows.append(_row(name, derived.get(name, getattr(settings, name)), variable, name in given))
    write_rows(rows, ("setting", "value", "from", "variable"), output)


def _row(name: str, value: object, variable: str, is_set: bool) -> dict[str, str]:
    from ndif_batch.config import without_password

    origin = "default" if not is_set else "variable" if variable in os.environ else "file"
    return {"setting": name, "value": without_password(str(value)), "from": origin, "variable": variable}
