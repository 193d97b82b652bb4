"""A queue that knows the toy model, a cluster under the test's control, and quiet logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ndif_batch.client import Client
from tests import toy
from tests.scheduler.small_cluster import Make, Room


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with toy.client(tmp_path) as opened:
        yield opened


@pytest.fixture
def room(client: Client) -> Iterator[Make]:
    """Makes a room with the cluster settings that it is given."""
    with ExitStack() as stack:

        def made(**cluster: Any) -> Room:
            one = Room(client, **cluster)
            stack.enter_context(one.queue)
            return one

        yield made
