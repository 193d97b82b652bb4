"""Whatever a real Slurm does to pilots, each task is done once and right, and nothing is left behind."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ndif_batch.config import load_settings
from ndif_batch.queue.cluster import PilotRecord, PilotState
from ndif_batch.queue.records import EventKind
from ndif_batch.scheduler.views import FIRST_BACKOFF
from tests.devcluster import DevCluster
from tests.slurm.site import NODES, SLOW, WHOLE_NODE, Site

pytestmark = pytest.mark.slow


LONG = 4096
"""So many scales of a slow job take a pilot of short passes longer than Slurm takes to look at its walltime twice."""
MINUTE = 60


def variables(process: int) -> dict[str, str]:
    lines = os.fsdecode(Path(f"/proc/{process}/environ").read_bytes()).split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def slurm_id(pilot: PilotRecord) -> str:
    assert pilot.external_id is not None
    return pilot.external_id


def test_without_work_there_is_no_pilot_and_after_it_none_again(site: Site) -> None:
    site.schedule(gpus=2, resources=WHOLE_NODE)
    site.until(lambda: site.logged("scheduler.leads"), "the first round")
    assert site.pilots() == []
    site.submit(scales=10)
    site.assert_whole()
    (pilot,) = site.pilots()
    assert site.how_it_ended(pilot) == (PilotState.ENDED, "COMPLETED")


def test_four_pilots_on_two_nodes_work_on_one_job_each_with_a_gpu_of_its_own(site: Site) -> None:
    one_gpu = {**WHOLE_NODE, "gpus_per_node": 1}
    site.schedule(gpus=4, resources=one_gpu, models={"tiny": {"minimum": 4}})
    site.until(lambda: len(site.ready()) == 4, "four pilots")
    workers = [site.worker(pilot) for pilot in site.ready()]
    devices = [(worker.host, variables(worker.pid)["CUDA_VISIBLE_DEVICES"]) for worker in workers]
    assert sorted(devices) == [("n0", "0"), ("n0", "1"), ("n1", "0"), ("n1", "1")]
    site.submit(scales=1024, job=SLOW)
    site.until(lambda: not site.client.queue.backlog(), "the last lease")
    site.schedule(gpus=4, resources=one_gpu)
    site.assert_whole()
    spans = site.spans()
    one, other = (
        [span for worker in workers if worker.host == node for span in spans.get(worker.id, [])] for node in NODES
    )
    assert any(begin < end and start < stop for begin, stop in one for start, end in other)
    assert {site.how_it_ended(pilot)[0] for pilot in site.pilots()} == {PilotState.ENDED}


def test_the_work_of_a_pilot_that_is_preempted_is_finished_by_another(site: Site, slurm: DevCluster) -> None:
    low = {"gpus": 2, "resources": {**WHOLE_NODE, "slurm_partition": "low"}}
    site.schedule(tokens=4, **low)
    site.submit(scales=LONG, job=SLOW)
    pilot = site.in_the_middle()
    site.schedule(tokens=4096, **low)
    words = ("--partition=high", f"--nodelist={site.worker(pilot).host}", "--gpus-per-node=2", "--output=/dev/null")
    preemptor = slurm.slurm("sbatch", "--parsable", *words, "--wrap=sleep 600").strip()
    site.until(lambda: len(site.pilots()) > 1, "another pilot")
    slurm.slurm("scancel", preemptor)
    site.assert_whole()
    state, reason = site.how_it_ended(pilot)
    assert state is PilotState.ENDED
    assert reason in ("COMPLETED", "PREEMPTED")
    assert re.fullmatch(r"SIGUSR2, \d{4,} s before the end of its walltime", site.last_words(pilot))
    site.assert_handed_over(pilot)


def test_a_job_that_is_longer_than_a_walltime_ends_all_the_same(site: Site, slurm: DevCluster) -> None:
    """The walltime is cut when the pilot works: Slurm would announce the end of a short one while it loads, too."""
    announced = {"gpus": 2, "resources": {**WHOLE_NODE, "slurm_signal_delay_s": 90}}
    site.schedule(tokens=4, **announced)
    site.submit(scales=LONG, job=SLOW)
    pilot = site.in_the_middle()
    site.schedule(tokens=4096, **announced)
    assert pilot.started_at is not None
    minutes = (site.client.queue.now() - pilot.started_at).total_seconds() // MINUTE + 2
    slurm.slurm("scontrol", "update", f"jobid={slurm_id(pilot)}", f"timelimit={minutes:.0f}")
    site.assert_whole()
    assert site.how_it_ended(pilot) == (PilotState.ENDED, "COMPLETED")
    assert re.fullmatch(r"SIGUSR2, \d{4} s before the end of its walltime", site.last_words(pilot))
    site.assert_handed_over(pilot)
    asked = [event.detail["pilot"] for event in site.events() if event.kind is EventKind.PILOT_DRAINING]
    assert pilot.name not in asked, "it was Slurm that asked"


def test_scancel_loses_nothing_whether_it_asks_or_kills(site: Site, slurm: DevCluster) -> None:
    site.schedule(tokens=4, gpus=2, resources=WHOLE_NODE)
    site.submit(scales=LONG, job=SLOW)
    first = site.in_the_middle()
    slurm.slurm("scancel", slurm_id(first))
    site.until(lambda: len(site.pilots()) > 1, "a second pilot")
    second = site.pilots()[1]
    site.until(lambda: second.id in {pilot.id for pilot in site.ready()}, "its model")
    second = site.in_the_middle()
    site.schedule(tokens=4096, gpus=2, resources=WHOLE_NODE)
    slurm.slurm("scancel", "--signal=KILL", slurm_id(second))
    site.assert_whole()
    assert site.how_it_ended(first) == (PilotState.ENDED, "CANCELLED")
    assert site.how_it_ended(second)[1] in ("CANCELLED", "FAILED"), "Slurm's versions differ"
    assert len(site.pilots()) == 3
    ends = (EventKind.WORKER_STOPPED, EventKind.WORKER_LOST)
    ended = [event.worker_id for event in site.events() if event.kind in ends]
    assert sorted(filter(None, ended)) == [first.worker_id, second.worker_id, site.pilots()[2].worker_id]


def test_the_work_of_a_node_that_dies_is_finished_on_another(site: Site, slurm: DevCluster) -> None:
    site.schedule(tokens=4, gpus=2, resources=WHOLE_NODE)
    site.submit(scales=LONG, job=SLOW)
    pilot = site.in_the_middle()
    site.schedule(tokens=4096, gpus=2, resources=WHOLE_NODE)
    worker = site.worker(pilot)
    slurm("kill-node", worker.host)
    site.until(lambda: len(site.pilots()) > 1, "another pilot")
    slurm("start-node", worker.host)
    site.assert_whole()
    state, reason = site.how_it_ended(pilot)
    assert (state, reason) in ((PilotState.FAILED, "its worker is silent"), (PilotState.ENDED, "NODE_FAIL"))
    assert set(site.who_did()) > {worker.id}


def test_pilots_that_run_and_wait_outlive_a_restart_of_slurmctld(site: Site, slurm: DevCluster) -> None:
    site.schedule(gpus=6, resources=WHOLE_NODE, models={"tiny": {"minimum": 3}})
    site.until(lambda: len(site.ready()) == 2 and site.active()[-1].reason in ("Resources", "Priority"), "pilots")
    running = site.ready()
    (waiting,) = [pilot for pilot in site.active() if pilot.state is PilotState.QUEUED]
    slurm("stop-ctld")
    site.submit(scales=1024, job=SLOW)
    site.until(lambda: not site.client.queue.backlog() and site.logged("tick.failed"), "work without a controller")
    slurm("start-ctld")
    assert {pilot.name for pilot in site.active()} == {pilot.name for pilot in (*running, waiting)}
    site.schedule(gpus=6, resources=WHOLE_NODE)
    site.assert_whole()
    assert set(site.who_did()) == {pilot.worker_id for pilot in running}
    assert {site.how_it_ended(pilot) for pilot in running} == {(PilotState.ENDED, "COMPLETED")}
    assert site.how_it_ended(waiting)[0] is PilotState.ENDED


def test_a_scheduler_outlives_a_squeue_that_fails_and_connections_that_are_cut(site: Site) -> None:
    squeue = site.folder / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\nexit 3\n")
    squeue.chmod(0o755)
    site.patch.setenv("PATH", str(squeue.parent), prepend=os.pathsep)
    site.schedule(gpus=2, resources=WHOLE_NODE)
    site.submit(scales=1024, job=SLOW)
    site.until(lambda: len(site.logged("tick.failed")) > 1, "what squeue does")
    assert {line["reason"] for line in site.logged("tick.failed")} == {"squeue: exit code 3"}
    squeue.unlink()
    site.in_the_middle()
    engine = create_engine(load_settings().database)
    with engine.connect() as connection:
        others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        assert connection.execute(text(f"SELECT count(pg_terminate_backend(pid)) {others}")).scalar_one() > 1
    engine.dispose()
    site.assert_whole()
    assert len(site.pilots()) == 1


def test_a_partition_that_refuses_is_told_without_a_storm_and_forgotten_when_it_is_right(
    site: Site, slurm: DevCluster
) -> None:
    site.schedule(gpus=2, resources={**WHOLE_NODE, "slurm_partition": "big"})
    job = site.submit(scales=10)
    site.until(lambda: site.logged("pilot.refused"), "a refusal")
    for words in (("cluster", "status", "-o", "json"), ("explain", job)):
        assert "Slurm refused the pilot" in site.says(*words)
        assert "invalid partition specified: big" in site.says(*words)
    site.stop_scheduler()
    refused = site.pilots()
    gaps = [later.requested_at - earlier.requested_at for earlier, later in pairwise(refused)]
    assert all(gap >= FIRST_BACKOFF for gap in gaps)
    slurm.slurm("scontrol", "update", "partitionname=low", "state=DOWN")
    site.schedule(gpus=2, resources={**WHOLE_NODE, "slurm_partition": "low"})
    site.until(lambda: site.active() and site.active()[0].reason == "PartitionDown", "Slurm's reason")
    for words in (("cluster", "status", "-o", "json"), ("explain", job)):
        assert "is QUEUED: PartitionDown" in site.says(*words)
    slurm.slurm("scontrol", "update", "partitionname=low", "state=UP")
    site.assert_whole()
    assert {site.how_it_ended(pilot)[0] for pilot in refused} == {PilotState.FAILED}
    assert len(site.pilots()) == len(refused) + 1
