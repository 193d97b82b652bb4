"""The page of Slurm, with what its commands print, and with what they say when they do not."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from ndif_batch.server.dashboard.slurm import Slurm
from tests.dashboard import scenes
from tests.dashboard.browsing import PHONE, visiting
from tests.dashboard.conftest import Scene


def test_partitions_nodes_and_what_pilots_wait_for_are_shown(browser: Browser, busy: Scene) -> None:
    with visiting(browser, busy.served, "ada", PHONE) as ada:
        ada.goes("/slurm")
        expect(ada.page.locator("#partition-1")).to_contain_text("gpu*")
        rows = ada.page.locator("[id^=node-]")
        assert rows.count() == len(scenes.NODES)
        expect(rows.filter(has_text="gpu-05")).to_contain_text("a fan is broken")
        waiting = ada.page.locator("[id^=waiting-]")
        expect(waiting).to_contain_text("Resources")
        assert (ada.errors, ada.overflows()) == ([], 0)


def test_a_slurm_that_does_not_answer_is_told_and_is_asked_seldom(sinfo: Path) -> None:
    page = Slurm()
    answers = page.look()
    assert [node.name for node in answers.nodes] == [line.partition("|")[0] for line in scenes.NODES]
    kept = sinfo.read_text()
    try:
        sinfo.write_text("#!/bin/sh\necho 'slurm_load_partitions: Unable to contact' >&2\nexit 1\n")
        assert page.look() is answers, "it was asked a moment ago"
        assert "Unable to contact" in Slurm().look().wrong
    finally:
        sinfo.write_text(kept)
