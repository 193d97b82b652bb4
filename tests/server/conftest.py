"""A server over a queue that knows the toy model, with a job of Ada's that has run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ndif_batch.client import Client, JobHandle
from tests import toy
from tests.server.serving import Served, serving
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Client]:
    """The client beside the database that the server serves."""
    with toy.client(tmp_path) as made:
        yield made


@pytest.fixture
def served(behind: Client) -> Iterator[Served]:
    """A server at a Unix socket."""
    with serving(behind.queue, behind.settings) as found:
        yield found


@pytest.fixture
def done(behind: Client) -> JobHandle:
    """Ada's job, completed."""
    job = submit(behind)
    with working(behind, ToyEngine()) as worker:
        worker.run()
    return job.refresh()
