"""The page of Slurm, with what its commands print, and with what they say when they do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ndif_batch.config import Settings
from tests import toy
from tests.dashboard import scenes
from tests.dashboard.browsing import PHONE, visiting
from tests.dashboard.conftest import Scene, playing


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A busy cluster whose pilots are Slurm jobs, at a site with eight nodes."""
    scenes.site(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with playing(tmp_path, scenes.busy, on_slurm(tmp_path)) as scene:
        yield scene


def on_slurm(root: Path) -> Settings:
    return Settings.model_validate({**toy.settings(root).model_dump(), "cluster": {"launcher": "slurm"}})


def test_partitions_nodes_and_what_pilots_wait_for_are_shown(browser: Browser, site: Scene) -> None:
    with visiting(browser, site.served, "ada", PHONE) as ada:
        ada.goes("/slurm")
        expect(ada.page.locator("#partition-1")).to_contain_text("gpu*")
        rows = ada.page.locator("[id^=node-]")
        assert rows.count() == len(scenes.NODES)
        expect(rows.filter(has_text="gpu-05")).to_contain_text("a fan is broken")
        waiting = ada.page.locator("[id^=waiting-]")
        expect(waiting).to_contain_text("Resources")
        assert (ada.errors, ada.overflows()) == ([], 0)


def test_a_slurm_that_does_not_answer_is_told_and_the_rest_is_shown(
    browser: Browser, site: Scene, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "sinfo").write_text("#!/bin/sh\necho 'slurm_load_partitions: Unable to contact' >&2\nexit 1\n")
    with visiting(browser, site.served, "root") as admin:
        admin.goes("/slurm")
        expect(admin.page.locator(".banner")).to_contain_text("Unable to contact")
        expect(admin.page.locator("[id^=waiting-]")).to_contain_text("Resources")
