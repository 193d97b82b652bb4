"""Launchers whose pilots do not outlive the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

import pytest

from ndif_batch.launcher import Launcher, PilotState
from ndif_batch.launcher.local import LocalLauncher
from ndif_batch.launcher.slurm import SlurmLauncher
from tests.devcluster import ROOT
from tests.waiting import until

Body: TypeAlias = Callable[[Path], None]


class Open(Protocol):
    """Makes a launcher, over the usual folder unless told."""

    def __call__(self, body: Body, place: Path | None = None) -> Launcher: ...


def active(launcher: Launcher) -> list[str]:
    states = (PilotState.QUEUED, PilotState.RUNNING)
    return sorted(name for name, seen in launcher.observe().items() if seen.state in states)


KINDS: dict[str, Callable[[Path, Body], Launcher]] = {"local": LocalLauncher, "slurm": SlurmLauncher}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the pilots' folders lie."""
    return tmp_path / "pilots"


@pytest.fixture(params=sorted(KINDS))
def opened(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Makes launchers of one kind over one folder; what is still active at the end is cancelled."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if request.param == "slurm":
        monkeypatch.setenv("SLURM_CONF", request.getfixturevalue("slurm").conf)
    launchers: list[Launcher] = []

    def made(body: Body, place: Path | None = None) -> Launcher:
        launchers.append(KINDS[request.param](place or folder, body))
        return launchers[-1]

    yield made
    for launcher in launchers:
        for name in active(launcher):
            launcher.cancel(name)
    until(lambda: not any(map(active, launchers)), "the end of every pilot")
