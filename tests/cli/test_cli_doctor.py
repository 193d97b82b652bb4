"""The doctor names what is wrong and what to do, and never falls over itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from ndif_batch.cli.doctor import Health, check_archive, check_slurm, file_system, safely
from ndif_batch.client import Client
from ndif_batch.config import ClusterSettings, Settings, load_settings
from ndif_batch.errors import SettingsError
from tests.cli.conftest import Run


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder to which nobody but root writes, while this process is not root."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)
            try:
                yield Path(folder)
            finally:
                os.seteuid(0)
        else:
            yield Path(folder)


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


def test_who_may_only_read_results_is_warned_and_may_submit(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDIF_BATCH_CONFIG", str(read_only / "none.toml"))
    elsewhere = Settings(database_url="postgresql+psycopg://ndif_batch@db/ndif_batch", archive_dir=read_only)
    (found,) = check_archive(elsewhere)
    assert (found.health, found.remedy) == (Health.WARN, "right for users; workers have to write there")
    (found,) = check_archive(Settings(archive_dir=read_only))
    assert found.health is Health.FAIL


def test_a_settings_file_that_cannot_be_read_is_an_error_that_names_it(
    read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_BATCH_CONFIG", "/proc/1/environ")
    with pytest.raises(SettingsError, match="Permission denied: '/proc/1/environ'"):
        load_settings()


def test_a_settings_file_that_is_no_toml_is_an_error_that_names_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("[cluster\n")
    monkeypatch.setenv("NDIF_BATCH_CONFIG", str(tmp_path / "config.toml"))
    ran = run("config", "show")
    assert ran.code == 2
    assert ran.err.startswith(f"error: {tmp_path}/config.toml: Expected ']' at the end of a table declaration")


def test_the_slurm_that_is_to_start_pilots_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def health(**cluster: Any) -> list[tuple[str, str]]:
        settings = Settings(cluster=ClusterSettings(**cluster))
        return [(found.health.value, found.detail) for found in safely(check_slurm, settings)]

    assert health(launcher="local") == []
    (wrong,) = health(launcher="slurm", resources={"slurm_partitoin": "GPU"})
    assert wrong[0] == "fail"
    assert wrong[1].startswith("resources: there is no word 'slurm_partitoin'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert health(launcher="slurm") == [("fail", "squeue is not on this machine")]


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
