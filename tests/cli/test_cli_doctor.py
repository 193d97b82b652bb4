"""The doctor names what is wrong and what to do, and never falls over itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndif_batch.cli.doctor import file_system
from ndif_batch.client import Client
from tests.cli.conftest import Run


def findings(run: Run) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in json.loads(run("doctor", "-o", "json").out)}


def test_a_house_in_order_has_no_failure(run: Run, client: Client) -> None:
    found = findings(run)
    assert list(found) == ["python", "packages", "database", "archive", "model cache", "models", "device"]
    assert "fail" not in {row["state"] for row in found.values()}
    assert found["models"]["detail"] == "toy"
    assert run("doctor").code == 0


def test_a_missing_database_fails_and_says_what_to_do(run: Run) -> None:
    assert run("doctor").code == 1
    database = findings(run)["database"]
    assert (database["state"], database["remedy"]) == ("fail", "run `ndif-batch db upgrade`")


def test_an_archive_that_cannot_be_written_fails(
    run: Run, client: Client, settled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_BATCH_ARCHIVE_DIR", "/proc/archive")
    archive = findings(run)["archive"]
    assert archive["state"] == "fail"
    assert "NDIF_BATCH_ARCHIVE_DIR" in archive["remedy"]


def test_a_model_whose_files_are_gone_fails(run: Run, client: Client, folder: Path) -> None:
    (folder / "models" / "toy" / "ndif_batch.json").unlink()
    assert findings(run)["models"]["state"] == "fail"


def test_the_file_system_under_a_path_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    inner = tmp_path / "home" / "with space"
    inner.mkdir(parents=True)
    escaped = str(inner).replace(" ", "\\040")
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path}/home nfs4 rw 0 0\nnone {escaped} tmpfs rw 0 0\n")
    assert file_system(tmp_path / "queue.db", mounts) == "ext4"
    assert file_system(tmp_path / "home" / "queue.db", mounts) == "nfs4"
    assert file_system(inner / "queue.db", mounts) == "tmpfs"
    assert file_system(tmp_path / "homes", mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "none") == ""
