"""The one-machine Slurm itself: what its users and every other test of Slurm rely on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.afterwards import processes_of
from tests.devcluster import SCRIPT, DevCluster, devcluster, free_ports, is_free
from tests.waiting import until


@pytest.fixture
def cluster() -> Iterator[DevCluster]:
    """A cluster to break."""
    with devcluster() as made:
        yield made


def state_of(cluster: DevCluster, job: str) -> str:
    return cluster.slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").strip()


def node_of(cluster: DevCluster, job: str) -> str:
    return cluster.slurm("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()


def sbatch(cluster: DevCluster, *options: str) -> str:
    command = ("sbatch", "--parsable", "--output=/dev/null", "--wrap=srun sleep 60", *options)
    return cluster.slurm(*command).strip()


def test_up_twice_is_one_cluster(cluster: DevCluster) -> None:
    before = cluster("status")
    cluster("up", 2, 2, "--port", cluster.port)
    daemons = [line for line in cluster("status").splitlines() if ": " in line]
    assert daemons == [line for line in before.splitlines() if ": " in line]
    assert [line.split(":")[0] for line in daemons] == ["slurmd.n0", "slurmd.n1", "slurmctld", "munged"]


def test_up_with_another_shape_is_the_other_cluster(cluster: DevCluster) -> None:
    cluster("up", 1, 0, "--port", cluster.port)
    assert cluster.slurm("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %G").split() == [
        "n0",
        "(null)",
    ]


@pytest.mark.slow
def test_down_leaves_no_process_and_no_port_even_with_jobs_and_a_dead_node(cluster: DevCluster) -> None:
    for _ in range(2):
        sbatch(cluster, "--gpus-per-node=2")
    until(lambda: cluster.slurm("squeue", "--noheader", "--states=RUNNING").count("\n") == 2, "two jobs")
    assert processes_of(cluster.folder)
    cluster("kill-node", "n0")
    cluster("down")
    until(lambda: not processes_of(cluster.folder), "the end of all processes", seconds=5)
    assert all(map(is_free, range(cluster.port, cluster.port + 3)))
    assert cluster.tried("status").returncode == 1
    cluster("down")


def test_down_ends_daemons_whose_pid_files_and_directory_are_gone(cluster: DevCluster) -> None:
    shutil.rmtree(cluster.folder)
    assert {"munged", "slurmctld", "slurmd"} <= set(processes_of(cluster.folder))
    cluster("down", "--purge")
    assert not processes_of(cluster.folder)


def test_up_that_fails_says_why_and_leaves_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "slurmd"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cluster = DevCluster(tmp_path / "state", free_ports(2))
    done = cluster.tried("up", 1, 0, "--port", cluster.port)
    assert (done.returncode, done.stderr) == (
        1,
        f"devcluster: slurmd did not start: out of order (see {cluster.folder}/log)\n",
    )
    assert (cluster.folder / "log/slurmctld.log").exists()
    assert not processes_of(cluster.folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may hide a file system")
def test_up_works_without_a_file_system_of_cgroups(tmp_path: Path) -> None:
    cluster = DevCluster(tmp_path / "state", free_ports(2))
    command = shlex.join([sys.executable, str(SCRIPT), "--dir", str(cluster.folder)])
    script = f"mount -t tmpfs none /sys && {command} up 1 2 --port {cluster.port}"
    try:
        subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True, timeout=60)
        assert cluster.tried("status").returncode == 0
    finally:
        cluster("down", "--purge")


def test_purge_removes_the_directory(cluster: DevCluster) -> None:
    cluster("down", "--purge")
    assert not cluster.folder.exists()


def test_ports_that_are_taken_are_not_given_to_a_cluster() -> None:
    first = free_ports(3)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first + 2))
        taken.listen()
        assert not set(range(first, first + 3)) & set(range(free_ports(3), free_ports(3) + 3))


def test_nothing_listens_beyond_loopback(cluster: DevCluster) -> None:
    sockets = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = {local for _, local, _, state, *_ in map(str.split, sockets) if state == "0A"}
    ours = {
        address
        for address, _, port in (local.partition(":") for local in listening)
        if int(port, 16) in range(cluster.port, cluster.port + 3)
    }
    assert ours == {"0100007F"}


def test_jobs_get_gpus_of_their_own(cluster: DevCluster, tmp_path: Path) -> None:
    for index in range(2):
        told = tmp_path / str(index)
        tell = f"echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES > {told}.tmp; mv {told}.tmp {told}; sleep 60"
        cluster.slurm("sbatch", "--output=/dev/null", "--nodelist=n1", "--gpus-per-node=1", f"--wrap={tell}")
    until(lambda: all((tmp_path / str(index)).exists() for index in range(2)), "two jobs")
    assert {(tmp_path / str(index)).read_text() for index in range(2)} == {"n1 0\n", "n1 1\n"}


def test_a_node_that_dies_takes_its_processes_and_its_job_runs_elsewhere(cluster: DevCluster) -> None:
    job = sbatch(cluster)
    until(lambda: state_of(cluster, job) == "RUNNING", "the job")
    first = node_of(cluster, job)
    cluster("kill-node", first)
    # slurmctld may have begun the job elsewhere by now
    assert "slurmstepd" not in processes_of(cluster.folder) or node_of(cluster, job) != first
    cluster.slurm("scontrol", "update", f"nodename={first}", "state=down", "reason=test")
    until(lambda: state_of(cluster, job) == "RUNNING", "the job again", seconds=30)
    assert {first, node_of(cluster, job)} == {"n0", "n1"}
    cluster("start-node", first)
    until(lambda: cluster.tried("status").returncode == 0, "the node", seconds=30)


def test_a_job_that_the_controller_has_saved_outlives_it(cluster: DevCluster) -> None:
    job = sbatch(cluster)
    until(lambda: state_of(cluster, job) == "RUNNING", "the job")
    seen, saved = time.time(), cluster.folder / "ctld/job_state"
    until(lambda: saved.exists() and saved.stat().st_mtime > seen, "a saved state")
    cluster("kill-ctld")
    assert cluster.tried("status").returncode == 1
    cluster("start-ctld")
    until(lambda: cluster.tried("status").returncode == 0, "every node", seconds=30)
    assert state_of(cluster, job) == "RUNNING"


def kill(cluster: DevCluster, *daemons: str) -> None:
    """They are gone at once, and their pid files stay."""
    for daemon in daemons:
        os.kill(int((cluster.folder / f"run/{daemon}.pid").read_text()), signal.SIGKILL)


def forge(cluster: DevCluster, daemon: str) -> None:
    """It is gone, and its number is another process's."""
    kill(cluster, daemon)
    (cluster.folder / f"run/{daemon}.pid").write_text(str(os.getpid()))


BREAKAGES: dict[str, Callable[[DevCluster], object]] = {
    "no munged": lambda cluster: kill(cluster, "munged"),
    "no daemon": lambda cluster: kill(cluster, "munged", "slurmctld", "slurmd.n0", "slurmd.n1"),
    "a pid file of another's": lambda cluster: forge(cluster, "slurmctld"),
    "half a shape": lambda cluster: (cluster.folder / "shape.json").write_text('{"nodes"'),
    "no configuration": lambda cluster: shutil.rmtree(cluster.folder / "etc"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_up_makes_what_is_half_dead_whole(cluster: DevCluster, breakage: str) -> None:
    BREAKAGES[breakage](cluster)
    assert cluster.tried("status").returncode == 1
    cluster("up", 2, 2, "--port", cluster.port)
    assert cluster.tried("status").returncode == 0


def test_up_without_a_port_takes_ports_that_nobody_has_and_keeps_them(tmp_path: Path) -> None:
    cluster = DevCluster(tmp_path / "state", 0)
    with ExitStack() as stack:
        taken = {port for port in range(16800, 16803) if is_free(port)}
        for port in taken:
            bound = stack.enter_context(socket.socket())
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("127.0.0.1", port))
            bound.listen()
        try:
            cluster("up", 1, 0)
            assert cluster.tried("status").returncode == 0
            ports = re.findall(r"Port=(\d+)", Path(cluster.conf).read_text())
            assert not taken & set(map(int, ports))
            cluster("down")
            cluster("up", 1, 0)
            assert re.findall(r"Port=(\d+)", Path(cluster.conf).read_text()) == ports
        finally:
            cluster("down", "--purge")


def test_a_port_that_is_taken_is_named_at_once_and_nothing_runs(tmp_path: Path) -> None:
    first = free_ports(2)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first + 1))
        taken.listen()
        cluster = DevCluster(tmp_path / "state", first)
        done = cluster.tried("up", 1, 0, "--port", first)
    assert (done.returncode, done.stderr) == (
        1,
        f"devcluster: port {first + 1} is taken by another program; name others with --port\n",
    )
    assert not processes_of(cluster.folder)


@pytest.mark.parametrize("words", [("status",), ("env",), ("start-ctld",), ("stop-ctld",), ("start-node", "n0")])
def test_without_a_cluster_commands_say_so(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = DevCluster(tmp_path / "state", 0).tried(*words)
    says = f"devcluster: there is no cluster in {tmp_path}/state; `devcluster up` makes one\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", says)


def test_down_without_a_cluster_is_no_error(tmp_path: Path) -> None:
    DevCluster(tmp_path / "state", 0)("down", "--purge")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("up", "0"), "nodes: '0' is no number from 1 to 100"),
        (("up", "2", "many"), "gpus: 'many' is no number from 0 to 100"),
        (("up", "--port", "80"), "--port: '80' is no number from 1024 to 65435"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = DevCluster(tmp_path / "state", 0).tried(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/thesis").write_text("years of work")
    cluster = DevCluster(tmp_path / "state", 0)
    done = cluster.tried("up", 1, 0)
    assert done.returncode == 1
    assert "is somebody else's: thesis; name another with --dir" in done.stderr
    cluster("down", "--purge")
    assert [entry.name for entry in (tmp_path / "state").iterdir()] == ["thesis"]


def test_a_directory_that_slurm_cannot_name_is_refused(tmp_path: Path) -> None:
    for name in ("with space", "x" * 100):
        done = DevCluster(tmp_path / name, 0).tried("up", 1, 0)
        assert done.returncode == 1
        assert "must be shorter, without spaces and signs" in done.stderr


def test_wrong_names_are_refused_with_the_right_ones(cluster: DevCluster) -> None:
    done = cluster.tried("kill-node", "n7")
    assert (done.returncode, done.stderr) == (1, "devcluster: there is no node 'n7'; there is n0, n1\n")


def test_the_environment_names_this_cluster(cluster: DevCluster) -> None:
    assert cluster("env") == f"export SLURM_CONF='{cluster.conf}'\n"
    assert SCRIPT.stat().st_mode & 0o111
