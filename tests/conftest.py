"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.devcluster import DevCluster, devcluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[DevCluster]:
    """A Slurm of two nodes with two GPUs each; a test that uses it leaves it whole and empty."""
    with devcluster() as cluster:
        yield cluster
