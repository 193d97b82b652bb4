"""One browser for all tests of the dashboard, and a server of each scene."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from ndif_batch.client.local import LocalQueue
from ndif_batch.config import Settings
from tests import toy
from tests.dashboard import scenes
from tests.dashboard.browsing import chromium
from tests.server.serving import Served, serving


@dataclass(frozen=True)
class Scene:
    """A server, and the queue behind it."""

    served: Served
    queue: LocalQueue


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with chromium() as found:
        yield found


@contextmanager
def playing(folder: Path, make: Callable[[Path], None], settings: Settings | None = None) -> Iterator[Scene]:
    """A server of a scene that is made in ``folder``."""
    make(folder)
    known = settings or toy.settings(folder)
    with LocalQueue.open(known.database) as queue, serving(queue, known, unix=False) as served:
        yield Scene(served, queue)


def on_slurm(root: Path) -> Settings:
    """The settings of a cluster whose pilots are Slurm jobs."""
    return Settings.model_validate({**toy.settings(root).model_dump(), "cluster": {"launcher": "slurm"}})


@pytest.fixture(scope="package")
def sinfo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The command of a site with eight nodes, which a test may break for a while."""
    folder = tmp_path_factory.mktemp("site") / "bin"
    scenes.site(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield folder / "sinfo"


@pytest.fixture(scope="package")
def busy(sinfo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The busy cluster, which tests look at and leave as it is."""
    root = tmp_path_factory.mktemp("busy")
    with playing(root, scenes.busy, on_slurm(root)) as scene:
        yield scene
