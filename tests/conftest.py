"""What tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.devcluster import DevCluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[DevCluster]:
    """A Slurm of two nodes with two GPUs each; a test that uses it leaves it whole and empty."""
    from tests.devcluster import devcluster  # a GPU machine has the engine's packages alone

    with devcluster() as cluster:
        yield cluster


SIDE_BY_SIDE = "PYTEST_XDIST_WORKER" in os.environ
"""Whether other processes run other tests of this run at the same time."""

TOGETHER = {
    "slurm": (
        "tests/slurm/",
        "tests/launcher/",
        "tests/scheduler/test_scheduler_processes.py",
        "tests/test_admin_page.py",
    ),
    "dashboard": ("tests/dashboard/",),
}
"""Tests that share what takes long to make, and so a process: a Slurm, for which they mostly wait; a browser."""


def pytest_configure() -> None:
    """Processes that share the cores take one thread each, as those that they start; no example has a deadline."""
    if SIDE_BY_SIDE:
        import hypothesis

        os.environ.setdefault("OMP_NUM_THREADS", "1")
        hypothesis.settings.register_profile("side by side", deadline=None)
        hypothesis.settings.load_profile("side by side")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What mostly waits begins."""
    if SIDE_BY_SIDE:
        items.sort(key=lambda item: not item.nodeid.startswith(TOGETHER["slurm"]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A module's tests stay in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return next((name for name, places in TOGETHER.items() if module.startswith(places)), module)

    return ByModule(config, log)
