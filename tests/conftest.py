"""What tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

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


def pytest_configure() -> None:
    """Processes that share the cores take one thread each, as those that they start; no example has a deadline."""
    if SIDE_BY_SIDE:
        import hypothesis

        os.environ.setdefault("OMP_NUM_THREADS", "1")
        hypothesis.settings.register_profile("side by side", deadline=None)
        hypothesis.settings.load_profile("side by side")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A module's tests stay together; those of Slurm, which mostly wait, are one group and begin."""
    if SIDE_BY_SIDE:
        items.sort(key=lambda item: not waits_for_slurm(item))
        for item in items:
            module = f"{item.path.parent.name}-{item.path.stem}"
            item.add_marker(pytest.mark.xdist_group("slurm" if waits_for_slurm(item) else module))


def waits_for_slurm(item: pytest.Item) -> bool:
    """Whether a test lets a Slurm work, the one that the tests share or its own."""
    return "slurm" in (item.path.parent.name, *getattr(item, "fixturenames", ()))
