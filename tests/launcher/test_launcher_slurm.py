"""What Slurm does to pilots, and what is seen of it, on a real Slurm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndif_batch.errors import SettingsError, UnavailableError
from ndif_batch.launcher import Observed, PilotRequest, PilotState, slurm_nodes
from ndif_batch.launcher.slurm import SlurmLauncher
from ndif_batch.launcher.submission import refusal
from tests.devcluster import ROOT, DevCluster, devcluster
from tests.launcher import bodies
from tests.launcher.conftest import active
from tests.waiting import until

WHOLE_NODE = {"gpus_per_node": 2}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def launcher(slurm: DevCluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmLauncher]:
    """On the cluster that tests share."""
    monkeypatch.setenv("SLURM_CONF", slurm.conf)
    made = SlurmLauncher(folder, bodies.waiting)
    yield made
    for name in active(made):
        made.cancel(name)
    until(lambda: not active(made), "the end of every pilot")


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[DevCluster]:
    """A cluster to break."""
    with devcluster() as cluster:
        monkeypatch.setenv("SLURM_CONF", cluster.conf)
        yield cluster


def start(launcher: SlurmLauncher, name: str, **resources: object) -> None:
    """Starts a pilot and waits until it works."""
    launcher.start(PilotRequest(name, "toy", resources=resources))
    until((launcher.folder / name / bodies.BEGAN).exists, f"pilot {name}")


def ended(launcher: SlurmLauncher, name: str, seconds: float = 60.0) -> Observed:
    """What is seen of a pilot that has ended."""
    until(lambda: launcher.observe()[name].state is PilotState.ENDED, f"the end of {name}", seconds)
    return launcher.observe()[name]


def was_drained(launcher: SlurmLauncher, name: str) -> bool:
    return (launcher.folder / name / "drained").exists()


def test_pilots_take_node_after_node_and_the_next_one_waits_with_slurm_s_reason(launcher: SlurmLauncher) -> None:
    for name in ("a", "b"):
        start(launcher, name, **WHOLE_NODE)
    launcher.start(PilotRequest("c", "toy", resources=WHOLE_NODE))
    until(lambda: launcher.observe()["c"].reason == "Resources", "the reason")
    seen = launcher.observe()
    assert [seen[name].state for name in "abc"] == [PilotState.RUNNING, PilotState.RUNNING, PilotState.QUEUED]
    assert {seen["a"].node, seen["b"].node} == {"n0", "n1"}
    launcher.drain("c")
    assert ended(launcher, "c").reason == "CANCELLED"
    assert not (launcher.folder / "c" / bodies.BEGAN).exists()


def test_a_pilot_has_the_resources_it_asked_for(launcher: SlurmLauncher) -> None:
    start(launcher, "a", gpus_per_node=2, cpus_per_task=3, mem_gb=1, slurm_nodelist="n1")
    told = (launcher.folder / "a" / bodies.BEGAN).read_text().split()
    assert told == ["CUDA_VISIBLE_DEVICES=0,1", "SLURMD_NODENAME=n1", "SLURM_CPUS_PER_TASK=3"]


def test_all_pilots_are_seen_with_one_query(
    launcher: SlurmLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        launcher.start(PilotRequest(name, "toy", resources=WHOLE_NODE))
    asked, squeue = tmp_path / "asked", tmp_path / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho once >> {asked}\nexec {shutil.which("squeue")} "$@"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=os.pathsep)
    assert set(launcher.observe()) >= {"a", "b", "c"}
    assert asked.read_text() == "once\n"


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ({"slurm_partition": "big"}, "Slurm refused the pilot: .*invalid partition"),
        ({"gpus_per_node": 9}, "Slurm refused the pilot: .*Requested node configuration is not available"),
    ],
)
def test_what_slurm_refuses_is_told_in_its_words_and_leaves_nothing(
    launcher: SlurmLauncher, resources: dict[str, object], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        launcher.start(PilotRequest("a", "toy", resources=resources))
    assert list(launcher.folder.iterdir()) == []
    assert active(launcher) == []


@pytest.mark.slow
def test_a_pilot_drains_before_its_walltime_and_is_not_requeued(launcher: SlurmLauncher) -> None:
    start(
        launcher, "a", timeout_min=1, slurm_signal_delay_s=10
    )  # Slurm says it up to 30 s earlier: not before it works
    assert ended(launcher, "a").reason == "COMPLETED: SIGUSR2"
    assert was_drained(launcher, "a")


def test_a_pilot_that_is_preempted_drains_and_does_not_come_back(launcher: SlurmLauncher, slurm: DevCluster) -> None:
    start(launcher, "a", slurm_partition="low", slurm_nodelist="n0", **WHOLE_NODE)
    words = ("--partition=high", "--nodelist=n0", "--gpus-per-node=2", "--output=/dev/null", "--wrap=true")
    slurm.slurm("sbatch", "--wait", *words)
    assert ended(launcher, "a").reason in ("COMPLETED: SIGUSR2", "PREEMPTED: SIGUSR2")
    assert was_drained(launcher, "a")


def test_scancel_by_hand_drains_too(launcher: SlurmLauncher, slurm: DevCluster) -> None:
    start(launcher, "a")
    slurm.slurm("scancel", launcher.observe()["a"].external_id)
    assert ended(launcher, "a").reason == "CANCELLED: SIGTERM"
    assert was_drained(launcher, "a")


def test_a_pilot_whose_node_dies_has_ended_for_good(fragile: DevCluster, folder: Path) -> None:
    launcher = SlurmLauncher(folder, bodies.waiting)
    start(launcher, "a")
    node = launcher.observe()["a"].node
    fragile("kill-node", node)
    fragile.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    assert ended(launcher, "a") == Observed(PilotState.ENDED, "1", "NODE_FAIL", node)
    assert not was_drained(launcher, "a")


def test_without_a_controller_nothing_is_known_and_after_it_everything(fragile: DevCluster, folder: Path) -> None:
    launcher = SlurmLauncher(folder, bodies.waiting)
    start(launcher, "a")
    fragile("stop-ctld")
    with pytest.raises(UnavailableError, match="Unable to contact slurm controller"):
        launcher.observe()
    fragile("start-ctld")
    assert active(launcher) == ["a"]
    launcher.drain("a")
    assert ended(launcher, "a").state is PilotState.ENDED
    assert was_drained(launcher, "a")


def test_a_controller_that_is_away_is_no_refusal() -> None:
    said = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    assert isinstance(refusal(said), UnavailableError)
    assert isinstance(refusal(said.replace("Unable to contact slurm controller", "Invalid qos")), SettingsError)


def test_without_slurm_s_commands_nothing_can_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    launcher = SlurmLauncher(folder)
    with pytest.raises(UnavailableError, match="squeue is not on this machine"):
        launcher.observe()
    with pytest.raises(UnavailableError, match="no pilot can start"):
        launcher.start(PilotRequest("a", "toy"))
    assert list(folder.iterdir()) == []


def test_partitions_and_nodes_are_told_as_slurm_has_them(slurm: DevCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.conf)
    partitions = slurm_nodes.partitions()
    assert {partition.name.rstrip("*") for partition in partitions} == {"main", "low", "high"}
    assert sum(one.nodes for one in partitions if one.name == "main*" and one.available == "up") == 2
    nodes = [node for node in slurm_nodes.nodes() if "main*" in node.partitions]
    assert len({node.name for node in nodes}) == 2
    assert {node.resources.partition("(")[0] for node in nodes} == {"gpu:2"}
    assert all(node.cpus >= 1 and node.memory > 0 and node.reason == "" for node in nodes)
    slurm.slurm("scontrol", "update", f"nodename={nodes[1].name}", "state=drain", "reason=a fan is broken")
    try:
        drained = next(node for node in slurm_nodes.nodes() if node.name == nodes[1].name)
    finally:
        slurm.slurm("scontrol", "update", f"nodename={nodes[1].name}", "state=resume")
    assert (drained.state.startswith("drain"), drained.reason) == (True, "a fan is broken")


def test_a_slurm_that_is_not_there_is_said_to_be_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="sinfo is not on this machine"):
        slurm_nodes.partitions()
