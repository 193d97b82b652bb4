"""A queue that knows the toy model, and quiet logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ndif_batch.client import Client
from tests import toy


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as captured:
        yield captured  # type: ignore[misc]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with toy.client(tmp_path) as opened:
        yield opened
