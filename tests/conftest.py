"""What tests of several rooms share."""

from __future__ import annotations

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
