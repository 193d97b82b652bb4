"""A database that is in use is copied into a file that only its owner may read."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from ndif_batch.errors import ConflictError, UnavailableError, UsageError
from ndif_batch.queue.backup import backup
from ndif_batch.queue.store import Queue
from tests.queue import postgres
from tests.queue.queue_samples import job_spec


def test_what_is_queued_is_in_the_copy(queue: Queue, url: str, tmp_path: Path) -> None:
    job = queue.submit(job_spec(shards=3))
    backup(url, tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    queue.cancel(job.id, "ada")
    if url.startswith("sqlite"):
        with Queue.open(f"sqlite:///{tmp_path / 'copy'}") as copied:
            assert copied.job(job.id).state == "PENDING"
            assert len(copied.shards(job.id)) == 3
    else:
        program = postgres.programs() / "pg_restore"
        listed = subprocess.run([program, "--list", tmp_path / "copy"], capture_output=True, text=True, check=True)
        assert "TABLE DATA public job" in listed.stdout


def test_a_file_that_is_there_stays(queue: Queue, url: str, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("mine")
    with pytest.raises(ConflictError, match="is there already"):
        backup(url, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "mine"
    with pytest.raises(UsageError, match="cannot write"):
        backup(url, tmp_path / "none" / "copy")


def test_what_is_no_database_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        backup(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
