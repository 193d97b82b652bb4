"""What an administrator copies, site profiles and systemd units, is understood by this version."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ndif_batch.cli.main import app
from ndif_batch.config import Settings, load_settings
from ndif_batch.errors import SettingsError
from ndif_batch.launcher.submission import check_resources
from ndif_batch.queue.database import parse

SLURM = Path(__file__).resolve().parents[2] / "slurm"
PROFILES = sorted((SLURM / "profiles").glob("*.toml"))
UNITS = sorted((SLURM / "systemd").glob("*.service"))


@pytest.fixture(params=PROFILES, ids=lambda path: path.stem)
def profile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("NDIF_BATCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NDIF_BATCH_CONFIG", str(request.param))
    return load_settings()


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request: pytest.FixtureRequest) -> dict[str, str]:
    lines = request.param.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w*=", line))


def test_there_is_a_profile_for_each_kind_of_site() -> None:
    assert [path.stem for path in PROFILES] == ["devcluster", "preemptible", "slurm", "workstation"]


def test_the_resources_of_a_profile_are_words_that_the_launcher_takes(profile: Settings) -> None:
    assert profile.cluster.resources
    check_resources(profile.cluster.resources)
    for model in profile.cluster.models.values():
        check_resources(model.resources)


def test_the_numbers_of_a_profile_fit_together(profile: Settings) -> None:
    cluster = profile.cluster
    pilots = [cluster.resources, *({**cluster.resources, **own.resources} for own in cluster.models.values())]
    assert max(int(str(given["gpus_per_node"])) for given in pilots) <= cluster.gpus
    assert cluster.shortest_walltime <= cluster.longest_walltime
    assert set(cluster.partitions) <= {given.get("slurm_partition") for given in pilots}
    assert all("timeout_min" not in given for given in pilots), "the scheduler chooses the walltime"


def test_a_profile_for_many_nodes_names_a_server_without_a_password_and_shared_places(profile: Settings) -> None:
    url = parse(profile.database)
    if profile.database_url:
        assert url.drivername == "postgresql+psycopg"
        assert url.password is None
        places = (profile.data_dir, profile.archive, profile.model_cache, profile.pilots)
        assert {path.parts[:3] for path in places} == {("/", "SHARED", "ndif-batch")}
    else:
        assert url.drivername == "sqlite"
        assert profile.model_fields_set == {"cluster"}


def test_a_unit_starts_a_command_that_there_is(unit: dict[str, str]) -> None:
    program, *words = shlex.split(unit["ExecStart"])
    assert Path(program).name == "ndif-batch"
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0, done.output


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_understands_a_unit(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / path.name
    copy.write_text(re.sub(r"/SHARED/ndif-batch/venv/bin/ndif-batch", sys.executable, path.read_text()))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if path.name in line]) == (0, [])


def test_a_unit_is_started_again_unless_its_settings_are_wrong(unit: dict[str, str]) -> None:
    assert unit["Restart"] == "on-failure"
    assert unit["RestartPreventExitStatus"] == str(SettingsError.exit_code)


def test_a_unit_that_ends_leaves_its_pilots_alone(unit: dict[str, str]) -> None:
    assert unit["KillMode"] == "process"


def test_a_unit_finds_its_settings_where_the_profiles_say_they_go(unit: dict[str, str]) -> None:
    name, _, path = unit["Environment"].partition("=")
    assert name == "NDIF_BATCH_CONFIG"
    assert f"to {path};" in (SLURM / "profiles" / "slurm.toml").read_text()
