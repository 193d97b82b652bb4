"""What needs weights runs in a process of its own, one of a kind at a time, and tells its errors as if it were here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ndif_batch.client import Client
from ndif_batch.config import Settings
from ndif_batch.errors import BusyError, NotFoundError, UnavailableError
from ndif_batch.server import apart
from ndif_batch.server.apart import ADD_MODEL, RECOMPUTE, Apart


def test_an_error_comes_back_as_its_class(behind: Client) -> None:
    with pytest.raises(NotFoundError, match="there is no job 9"):
        Apart().call(RECOMPUTE, behind.settings, job_id=9, count=1, seed=0)


def test_only_one_of_a_kind_runs_at_a_time_and_the_next_is_told_to_come_again() -> None:
    here = Apart()
    with here.busy[RECOMPUTE], pytest.raises(BusyError, match="for somebody else") as caught:
        here.call(RECOMPUTE, Settings(), job_id=1, count=1, seed=0)
    assert caught.value.retry_after == apart.RETRY_SECONDS
    assert not here.busy[ADD_MODEL].locked()


def test_a_process_that_dies_is_told_as_unavailable_and_the_next_may_run(
    behind: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dies"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o700)
    here = Apart()
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(UnavailableError, match="has died"):
        here.call(RECOMPUTE, behind.settings, job_id=1, count=1, seed=0)
    assert not here.busy[RECOMPUTE].locked()
