"""What holds for every launcher that starts processes: this host's and Slurm's."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ndif_batch.errors import ConflictError, NotAllowedError, SettingsError, UsageError
from ndif_batch.launcher import PilotRequest, PilotState, pilot
from tests import toy
from tests.launcher import bodies
from tests.launcher.conftest import Open, active
from tests.waiting import until


def test_a_pilot_is_seen_from_its_start_to_its_end(opened: Open, folder: Path) -> None:
    launcher = opened(bodies.waiting)
    external_id = launcher.start(PilotRequest("a", "toy"))
    assert active(launcher) == ["a"]
    until((folder / "a" / bodies.BEGAN).exists, "the pilot")
    seen = launcher.observe()["a"]
    assert (seen.state, seen.external_id) == (PilotState.RUNNING, external_id)
    assert seen.node
    launcher.drain("a")
    until(lambda: not active(launcher), "the end")
    assert (folder / "a" / "drained").exists()


def test_an_observer_that_started_nothing_sees_and_drains_the_same_pilots(opened: Open, folder: Path) -> None:
    external_id = opened(bodies.waiting).start(PilotRequest("a", "toy"))
    until((folder / "a" / bodies.BEGAN).exists, "the pilot")
    another = opened(bodies.waiting)
    assert another.observe()["a"].external_id == external_id
    another.drain("a")
    until(lambda: not active(another), "the end")
    assert (folder / "a" / "drained").exists()


def test_a_pilot_that_is_drained_before_it_begins_never_begins(opened: Open, folder: Path) -> None:
    launcher = opened(bodies.waiting)
    launcher.start(PilotRequest("a", "toy"))
    launcher.drain("a")
    until(lambda: not active(launcher), "the end", seconds=20)
    assert not (folder / "a" / bodies.BEGAN).exists()


def test_cancel_ends_one_pilot_and_leaves_the_other(opened: Open, folder: Path) -> None:
    launcher = opened(bodies.waiting)
    for name in ("a", "b"):
        launcher.start(PilotRequest(name, "toy"))
    for name in ("a", "b"):
        until((folder / name / bodies.BEGAN).exists, f"pilot {name}")
    launcher.cancel("a")
    until(lambda: active(launcher) == ["b"], "the end of one")


def test_a_pilot_that_fails_ends_with_its_error_as_the_reason(opened: Open) -> None:
    launcher = opened(bodies.failing)
    launcher.start(PilotRequest("a", "toy"))
    reasons: list[str] = []

    def ended() -> bool:
        reasons.extend(seen.reason for seen in launcher.observe().values() if seen.state is PilotState.ENDED)
        return bool(reasons)

    until(ended, "the end")
    assert reasons == ["FAILED: there is no model 'gtp2'"]


def test_a_pilot_is_a_worker_with_the_settings_file_and_the_variables_it_was_given(
    opened: Open, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATA_DIR", "DATABASE_URL", "MODEL_CACHE"):
        monkeypatch.delenv(f"NDIF_BATCH_{name}", raising=False)
    with toy.client(tmp_path / "data"):
        config = tmp_path / "settings.toml"
        config.write_text(f'data_dir = "{tmp_path}/nowhere"\n')
        variables = {"NDIF_BATCH_DATA_DIR": str(tmp_path / "data")}
        opened(pilot.run).start(PilotRequest("a", "gtp2", config, environment=variables))
        until((folder / "a" / pilot.ERROR).exists, "the end")
    assert "'gtp2'" in (folder / "a" / pilot.ERROR).read_text()


def test_to_end_what_never_was_or_has_ended_is_no_error(opened: Open) -> None:
    launcher = opened(bodies.short)
    launcher.start(PilotRequest("a", "toy"))
    until(lambda: not active(launcher), "the end")
    for name in ("a", "never"):
        launcher.drain(name)
        launcher.cancel(name)


def test_two_pilots_never_have_one_name(opened: Open) -> None:
    launcher = opened(bodies.short)
    launcher.start(PilotRequest("a", "toy"))
    with pytest.raises(ConflictError, match="'a' was started before"):
        launcher.start(PilotRequest("a", "toy"))


def test_another_folder_s_pilots_are_another_s(opened: Open, tmp_path: Path) -> None:
    launcher = opened(bodies.waiting)
    launcher.start(PilotRequest("a", "toy"))
    stranger = opened(bodies.waiting, tmp_path / "elsewhere")
    assert stranger.observe() == {}
    stranger.cancel("a")
    assert active(launcher) == ["a"]


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"gpus": 1}, "no word 'gpus'; there are cpus_per_task, gpus_per_node, mem_gb, timeout_min, slurm_account"),
        ({"slurm_partion": "low"}, "did you mean 'slurm_partition'"),
        ({"slurm_comment": "mine"}, "no word 'slurm_comment'"),
        ({"timeout_min": "an hour"}, '"timeout_min" expected type'),
    ],
)
def test_wrong_resources_are_refused_with_the_words_there_are_and_leave_nothing(
    opened: Open, folder: Path, resources: dict[str, object], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        opened(bodies.short).start(PilotRequest("a", "toy", resources=resources))
    assert list(folder.iterdir()) == []


def test_nobody_else_can_enter_a_pilot_s_folder(opened: Open, folder: Path) -> None:
    folder.mkdir(mode=0o755)
    opened(bodies.short).start(PilotRequest("a", "toy"))
    assert {stat.S_IMODE(place.stat().st_mode) for place in (folder, folder / "a")} == {0o700}


def test_a_folder_of_another_user_is_refused(opened: Open, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.setattr("os.geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(NotAllowedError, match="belongs to another user"):
        opened(bodies.short)


@pytest.mark.parametrize("name", ["", "../a", "a b", "-a", "a" * 65])
def test_a_name_that_is_no_file_s_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a pilot"):
        PilotRequest(name, "toy")
