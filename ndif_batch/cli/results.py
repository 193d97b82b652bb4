"""The verbs results ls, show, get, export, verify, rm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ndif_batch.cli.output import Format, Output, say, stdout, write_rows
from ndif_batch.errors import NotFoundError, UsageError
from ndif_batch.measures import size

if TYPE_CHECKING:
    from ndif_batch.archive import Results
    from ndif_batch.client import JobHandle
    from ndif_batch.client.panels import Panels

app = typer.Typer(help="Read, draw and export what jobs saved.", no_args_is_help=True)

DAMAGED = 1
MOST_PANELS = 4
SUFFIXES = {".safetensors": "safetensors", ".npz": "npz", ".parquet": "parquet", ".csv": "csv"}

Job: TypeAlias = Annotated[int, typer.Argument(metavar="JOB", help="The job's number.")]
At: TypeAlias = Annotated[
    list[str] | None, typer.Option("--at", metavar="NAME=VALUE", help="Keep one label (or position) of a dimension.")
]
Mean: TypeAlias = Annotated[list[str] | None, typer.Option("--mean", metavar="NAME", help="Average over a dimension.")]


@app.command()
def ls(
    job: Annotated[
        int | None, typer.Argument(metavar="[JOB]", help="The arrays of one job; else jobs with results.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """List jobs that have results, or the arrays of one job."""
    from ndif_batch.client import Client

    with Client() as client:
        if job is None:
            found = [handle.record for handle in client.jobs()]
            readable = set(client.service.with_results([record.id for record in found]))
            records = [record for record in found if record.id in readable]
            rows = [
                {"job": r.id, "name": r.name, "arrays": ",".join(a["name"] for a in r.arrays), "path": str(r.store)}
                for r in records
            ]
            write_rows(rows, ("job", "name", "arrays", "path"), output)
        else:
            write_rows(_arrays(client.job(job).results(), output), ("array", "dims", "shape", "dtype", "bytes"), output)


@app.command()
def show(
    job: Job,
    save: Annotated[str | None, typer.Option("--save", help="Which array; the first that fits if not given.")] = None,
    at: At = None,
    mean: Mean = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="OUT.png", help="Also draw into a file.")] = None,
) -> None:
    """Draw a result: its value, a bar for each place of one dimension, a heat map of two, several of more."""
    from ndif_batch.client import Client

    with Client() as client:
        handle = client.job(job)
        results = handle.results()
    title = f"{handle.record.name} ({job})"
    save = save or _default(results)
    draw_panels(panels_of(results, save, at or [], mean or [], title, MOST_PANELS))
    if plot is not None:
        from ndif_batch.cli import plot as png

        drawn = panels_of(results, save, at or [], mean or [], title, png.MOST_PANELS)
        png.save_plot(drawn, plot)
        say(f"wrote {plot}{_left_out(drawn)}")


@app.command()
def get(
    job: Job,
    save: Annotated[str | None, typer.Argument(metavar="[SAVE]", help="One array; else all single numbers.")] = None,
    at: At = None,
    output: Output = Format.TABLE,
) -> None:
    """Print values as a long table: a column for each dimension, one for the value."""
    from ndif_batch.cli.selection import long_table, select
    from ndif_batch.client import Client

    with Client() as client:
        results = client.job(job).results()
    if save is None:
        if at:
            raise UsageError("--at needs the name of an array", hint=f"one of {', '.join(results)}")
        frame = results.dataframe().reset_index()
    else:
        frame = long_table(select(results, save, at or []), save)
    columns = [str(column) for column in frame.columns]
    rows = [dict(zip(columns, map(_plain, row), strict=True)) for row in frame.itertuples(index=False, name=None)]
    write_rows(rows, columns, output)


@app.command()
def export(
    job: Job,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    to: Annotated[
        str | None, typer.Option("--to", help="safetensors, npz, parquet or csv; else by the suffix.")
    ] = None,
) -> None:
    """Copy results into one file of another format."""
    from ndif_batch.client import Client

    form = to or SUFFIXES.get(path.suffix)
    if form is None:
        raise UsageError(f"{path}: no format goes with this suffix", hint=f"say --to {', '.join(SUFFIXES.values())}")
    from ndif_batch.archive import export as export_results

    with Client() as client:
        left_out = export_results(client.job(job).results(), path, form)
    if left_out:
        say(f"left out, larger than a number: {', '.join(left_out)}")
    say(f"wrote {path}")


@app.command()
def verify(
    job: Job,
    recompute: Annotated[
        int | None, typer.Option("--recompute", metavar="N", min=1, help="Also run N saved tasks again, each alone.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides which tasks are run again.")] = 0,
    output: Output = Format.TABLE,
) -> None:
    """Compare every file of a job's results with its checksum; exit code 1 if one is damaged.

    With --recompute tasks are run again here, from the graph and bindings in the archive, and the largest deviation of
    each array is listed in place of the files; exit code 1 if one is larger than rounding explains.
    """
    from ndif_batch.cli.verified import recomputed
    from ndif_batch.client import Client

    with Client() as client:
        problems = client.job(job).results().verify()
        right = recompute is None or recomputed(client, job, recompute, seed, output)
    if recompute is None:
        rows = [{"file": p.path, "what": p.what, "first_task": p.tasks.start, "tasks": len(p.tasks)} for p in problems]
        write_rows(rows, ("file", "what", "first_task", "tasks"), output)
    if problems:
        say(f"{len(problems)} files are damaged; `ndif-batch retry` does not bring them back, a new run does")
    else:
        say("every file is as it was written")
    if problems or not right:
        raise typer.Exit(DAMAGED)


@app.command()
def rm(jobs: Annotated[list[int], typer.Argument(metavar="JOB...", help="Numbers of your jobs.")]) -> None:
    """Delete what ended jobs saved. The jobs stay in the lists."""
    from ndif_batch.cli.steer import each

    def removed(job: JobHandle) -> str:
        bytes_ = size(job.record.archive_bytes)
        if job.remove_results():
            return f"the results of job {job.id} are deleted (up to {bytes_})"
        return f"the results of job {job.id} are given up; the scheduler deletes them (up to {bytes_})"

    each(jobs, removed)


def panels_of(results: Results, save: str, at: list[str], mean: list[str], title: str, most: int) -> Panels:
    """At most ``most`` pictures of one array, or of the part ``at`` and averaged over ``mean``."""
    from ndif_batch.cli.selection import average, select
    from ndif_batch.client.panels import panels

    data = average(select(results, save, at), mean)
    return panels(data, f"{save} of {title}", results.attributes.get("tokens"), most)


def draw_panels(panels: Panels) -> None:
    """Draw on stdout, as wide as the terminal, one below the other."""
    from rich.console import Console

    from ndif_batch.cli.terminal import draw

    console = stdout() if stdout().is_terminal else Console(file=stdout().file, width=100, highlight=False)
    for number, picture in enumerate(panels.pictures):
        if number:
            console.print()
        console.print(draw(picture, console.width))
    if panels.total > len(panels.pictures):
        dim = panels.dims[0]
        say(f"drawn{_left_out(panels)}; keep one with --at {dim}=…, or average with --mean {dim}")


def _left_out(panels: Panels) -> str:
    """Of how many pictures some were drawn, if of more."""
    shown, along = len(panels.pictures), ", ".join(panels.dims)
    return "" if shown == panels.total else f": {shown} of {panels.total:,} (along {along})"


def _default(results: Results) -> str:
    names = list(results)
    if not names:
        raise NotFoundError("the job saves nothing")
    chosen = next((name for name in names if not results.array_of(name).dims), names[0])
    if len(names) > 1:
        say(f"showing {chosen}; --save chooses among {', '.join(names)}")
    return chosen


def _arrays(results: Results, output: Format) -> list[dict[str, Any]]:
    rows = []
    for name in results:
        array, spec = results[name], results.array_of(name)
        dims, count = (*results.axes_of(name), *spec.dims), array.nbytes
        rows.append(
            {
                "array": name,
                "dims": ",".join(dims) if output is Format.TABLE else list(dims),
                "shape": "×".join(map(str, array.shape)) if output is Format.TABLE else list(array.shape),  # noqa: RUF001
                "dtype": spec.source_dtype,
                "bytes": size(count) if output is Format.TABLE else count,
            }
        )
    return rows


def _plain(value: Any) -> Any:
    """A value as JSON and CSV have it: nothing for NaN."""
    value = value.item() if hasattr(value, "item") else value
    return None if value != value else value
