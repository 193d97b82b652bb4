"""The catalogue: every job has a sweep that binds what it takes, and a place on the page of methods."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from ndif_batch.sweep.load import load_sweep
from tests.jobs.test_catalogue_frozen import JOBS, ROOT, build
from tests.site_maps import smollm2

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
PICTURES = sorted((ROOT / "docs" / "pictures" / "methods").glob("*.png"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_binds_what_its_job_takes(path: Path) -> None:
    sweep = load_sweep(path)
    graph = build(sweep.experiment, smollm2()).graph
    sweep.check(graph.params, graph.saves())
    assert set(sweep.reduce) <= set(graph.saves())
    assert sweep.space.tensors() == set(sweep.tensors)
    assert 1 <= sweep.space.size <= 600


def test_every_job_has_a_sweep() -> None:
    assert {load_sweep(path).experiment.resolve() for path in SWEEPS} == set(JOBS)


def test_the_page_of_methods_says_what_the_jobs_say() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "methods.py"))
    assert sorted(job for jobs in written["GROUPS"].values() for job in jobs) == [job.stem for job in JOBS]
    text = (ROOT / "docs" / "methods.md").read_text()
    table = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("| "))
    assert text == written["page"](table), "docs/methods.md is old: run `make docs`"


def test_pictures_of_methods_are_small_and_of_jobs() -> None:
    assert {path.stem for path in PICTURES} <= {job.stem for job in JOBS}
    assert all(path.stat().st_size <= 40_000 for path in PICTURES)
