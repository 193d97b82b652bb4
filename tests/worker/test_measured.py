"""A worker tells what it measured, with its heartbeats; each line of its log says whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from ndif_batch import worker
from ndif_batch.client import Client, JobHandle
from ndif_batch.queue import schema
from ndif_batch.queue.telemetry import BUCKETS, Gauge, Histogram, Measured, total
from ndif_batch.server.metrics import metrics
from ndif_batch.sweep.space import Axis, Space
from tests import tiny, toy

TASKS = 6


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    settings = toy.settings(tmp_path / "here")
    schema.upgrade(settings.database)
    (source := tmp_path / "source").mkdir()
    with Client(settings) as made:
        made.add_model(str(tiny.write(source)), tiny.NAME)
        yield made


def submit(client: Client) -> JobHandle:
    space = Space((Axis("position", {"position": range(3)}), Axis("layer", {"layer": [0, 1]})), {"answer": "Paris"})
    space = Space(space.axes, {**space.constants, "prompt": "the cat sat on"})
    return client.submit(client.prepare(toy.reading(), space, tiny.NAME), verify_fraction=1.0)


def test_what_a_worker_did_is_in_the_metrics_and_its_log_names_it(client: Client) -> None:
    job = submit(client)
    with capture_logs(processors=[merge_contextvars]) as logs:
        worker.run(client.settings, tiny.NAME, until_idle=True, device="cpu")
    found = client.queue.measured()[tiny.NAME]
    assert found.counts["saved"] == TASKS
    assert sum(found.histograms["task_wait_seconds"].counts) == TASKS
    assert sum(found.histograms["lease_seconds"].counts) >= 1
    passes = found.histograms["pass_tasks"]
    assert sum(passes.counts) >= 1
    assert passes.total == pytest.approx(TASKS)
    assert found.histograms["pass_seconds"].total > 0
    assert found.counts["verified"] >= 1
    text = metrics(client.queue, client.settings.archive).decode()
    for line in (
        f'ndif_batch_tasks_finished_total{{model="tiny",outcome="saved"}} {TASKS}.0',
        f'ndif_batch_task_wait_seconds_count{{model="tiny"}} {TASKS}.0',
        f'ndif_batch_pass_tasks_sum{{model="tiny"}} {passes.total}',
        'ndif_batch_tasks_checked_total{model="tiny",result="deviating"} 0.0',
    ):
        assert line in text.splitlines()
    entries = [entry for entry in logs if entry["event"] not in ("job.finished",)]
    assert {entry.get("worker") for entry in entries} == {1}
    (done,) = (entry for entry in logs if entry["event"] == "shard.done")
    assert (done["job"], done["model"]) == (job.id, tiny.NAME)


def test_observations_lie_in_the_bucket_of_their_bound() -> None:
    gauge = Gauge()
    for value, times in ((1, 2), (1.5, 1), (2, 1), (5000, 3)):
        gauge.observe("pass_tasks", value, times)
    found = gauge.measured.histograms["pass_tasks"]
    assert found == Histogram((2, 2, *[0] * 9, 3), 2 + 1.5 + 2 + 15_000)
    assert len(found.counts) == len(BUCKETS["pass_tasks"]) + 1


def test_what_is_measured_adds_up_and_is_read_back() -> None:
    one, other = Gauge(), Gauge()
    for gauge, deviation in ((one, 0.25), (other, 0.5)):
        gauge.observe("lease_seconds", 0.02)
        gauge.count("saved", 3)
        gauge.deviates(deviation)
    other.count("failed")
    both = total([one.measured, other.measured])
    assert (both.counts, both.deviation) == ({"saved": 6, "failed": 1}, 0.5)
    assert (sum(both.histograms["lease_seconds"].counts), both.histograms["lease_seconds"].total) == (2, 0.04)
    assert Measured.from_json(both.to_json()) == both
    assert total([Measured(), both]) == both
    assert total([]) == Measured()


def test_news_are_told_once() -> None:
    gauge = Gauge()
    assert gauge.news() is None
    gauge.count("saved")
    assert gauge.news() == Measured(counts={"saved": 1})
    assert gauge.news() is None


def test_a_histogram_of_another_version_is_left_out() -> None:
    told = {"histograms": {"pass_seconds": [[1, 2], 3.0], "gone": [[1], 1.0]}, "counts": {}, "deviation": None}
    assert Measured.from_json(told) == Measured()
