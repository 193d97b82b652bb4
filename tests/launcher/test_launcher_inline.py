"""Pilots in the scheduler's own process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ndif_batch.errors import SettingsError
from ndif_batch.launcher import Observed, PilotRequest, PilotState, open_launcher, pilot
from ndif_batch.launcher.inline import InlineLauncher
from tests.launcher import bodies


def test_a_pilot_has_ended_when_start_returns_and_is_then_forgotten(folder: Path) -> None:
    launcher = InlineLauncher(folder, bodies.short)
    external_id = launcher.start(PilotRequest("a", "toy"))
    assert (folder / "a" / bodies.BEGAN).exists()
    assert launcher.observe() == {"a": Observed(PilotState.ENDED, external_id, "COMPLETED: it was short")}
    assert launcher.observe() == {}


def test_a_pilot_s_error_is_its_end_and_not_the_caller_s(folder: Path) -> None:
    launcher = InlineLauncher(folder, bodies.failing)
    launcher.start(PilotRequest("a", "toy"))
    assert launcher.observe()["a"].reason == "FAILED: there is no model 'gtp2'"


def test_a_pilot_ends_as_soon_as_there_is_no_work_and_its_variables_go_with_it(folder: Path) -> None:
    seen: list[tuple[str | None, object]] = []

    def look(place: Path) -> None:
        order = json.loads((place / pilot.ORDER).read_text())
        os.environ.update(order["environment"])
        seen.append((os.environ.get("OF_A_PILOT"), order["idle_seconds"]))

    InlineLauncher(folder, look).start(PilotRequest("a", "toy", environment={"OF_A_PILOT": "1"}))
    assert seen == [("1", 0.0)]
    assert "OF_A_PILOT" not in os.environ


def test_an_unknown_kind_of_launcher_is_refused_with_the_nearest(folder: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'slurm'"):
        open_launcher("slrum", folder)
