"""Every key of a sweep file does what it says, from the file to what the results show."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndif_batch.archive import TaskStatus
from ndif_batch.client import Client
from ndif_batch.errors import UsageError
from ndif_batch.graph.nodes import Graph
from ndif_batch.queue.records import JobRecord
from ndif_batch.sweep.space import Space
from ndif_batch.worker.ending import Until
from tests import toy
from tests.cli.conftest import SWEEP, Run
from tests.cli.test_cli_jobs import drain, third
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import working

DRAWN = """version: 1
name: drawn
model: toy
job: job.py
method: random
samples: {samples}
parameters:
  layer: {{distribution: int_uniform, min: 0, max: 3}}
  position: {{range: [0, 3]}}
  "prompt, answer": [[the cat sat, Paris], [the dog ran, Rome]]
"""


def ran(run: Run, client: Client, folder: Path, text: str, *options: object) -> JobRecord:
    """The newest job after its sweep was submitted and run."""
    (folder / "sweep.yaml").write_text(text)
    told = run("sweep", "run", "sweep.yaml", "--parsable", *options)
    assert told.code == 0, told.err
    drain(client)
    return client.job(int(told.out)).record


def status(client: Client, record: JobRecord) -> list[str]:
    return [TaskStatus(int(one)).name for one in client.job(record.id).results().status().reshape(-1)]


def test_excluded_points_are_not_run_and_included_ones_are(run: Run, client: Client, folder: Path) -> None:
    text = (
        SWEEP.replace("range: [0, 4]", "range: [0, 2]") + "exclude: [{layer: 0}]\ninclude: [{layer: 3, position: 1}]\n"
    )
    (folder / "sweep.yaml").write_text(text)
    plan = json.loads(run("sweep", "plan", "sweep.yaml", "-o", "json").out)
    assert (plan["tasks"], plan["excluded_points"], plan["axes"]) == (4, 5, {"layer": 3, "position": 3})
    assert (plan["first_task"]["layer"], plan["last_task"]["layer"]) == (1, 3)
    told = run("sweep", "run", "sweep.yaml").out
    assert told == "Submitted job 1 (4 tasks, 5 points excluded)\n"
    drain(client)
    record = client.job(1).record
    out, saved = "EXCLUDED", "SAVED"
    assert status(client, record) == [out] * 3 + [saved] * 3 + [out, saved, out]
    shown = json.loads(run("show", 1, "-o", "json").out)
    assert (shown["state"], shown["excluded_points"], shown["failed"]) == ("COMPLETED", 5, 0)
    assert run("results", "show", 1, "--save", "logit").code == 0
    run("results", "export", 1, "out.csv")
    assert (folder / "out.csv").read_text().count("excluded") == 5
    assert run("sweep", "run", "sweep.yaml").out.endswith(
        "(4 tasks, 5 points excluded, 4 of them re-used from job 1)\n"
    )


def test_random_points_lie_on_one_axis_with_a_label_for_each_parameter(run: Run, client: Client, folder: Path) -> None:
    record = ran(run, client, folder, DRAWN.format(samples=6) + "seeds: 2\n", "--seed", 5)
    data = client.job(record.id).results().xarray()
    assert dict(data["logit"].sizes) == {"point": 6, "seed": 2}
    assert {name: data[name].dims for name in ("layer", "position", "prompt", "answer", "seed")} == {
        **dict.fromkeys(("layer", "position", "prompt", "answer"), ("point",)),
        "seed": ("seed",),
    }
    (axis, _) = record.space["axes"]
    assert data["layer"].values.tolist() == axis["columns"]["layer"]
    pairs = set(zip(data["prompt"].values.tolist(), data["answer"].values.tolist(), strict=True))
    assert pairs <= {("the cat sat", "Paris"), ("the dog ran", "Rome")}
    first = np.asarray(data["residual"])[0, 0]
    assert first[0] == 100 * axis["columns"]["layer"][0] + 10 * axis["columns"]["position"][0]
    again = ran(run, client, folder, DRAWN.format(samples=6) + "seeds: 2\n", "--seed", 5, "--no-reuse")
    assert again.space == record.space
    assert ran(run, client, folder, DRAWN.format(samples=6), "--seed", 6).space != record.space


def test_more_samples_run_only_the_new_points(run: Run, client: Client, folder: Path) -> None:
    first = ran(run, client, folder, DRAWN.format(samples=6))
    more = ran(run, client, folder, DRAWN.format(samples=9))
    assert status(client, first) == ["SAVED"] * 6
    assert status(client, more)[:6] == ["REUSED"] * 6


def test_a_list_is_one_axis_with_a_label_for_each_parameter(run: Run, client: Client, folder: Path) -> None:
    text = (
        "version: 1\nname: list\nmodel: toy\njob: job.py\nmethod: list\nparameters:\n"
        "- {layer: 3, position: 0, prompt: the cat sat, answer: Paris}\n"
        "- {layer: 1, position: 2, prompt: the dog ran, answer: Rome}\n"
    )
    record = ran(run, client, folder, text)
    frame = client.job(record.id).results().dataframe()
    assert frame[["layer", "position", "prompt"]].values.tolist() == [[3, 0, "the cat sat"], [1, 2, "the dog ran"]]


def test_save_keeps_the_named_saves_only(run: Run, client: Client, folder: Path) -> None:
    record = ran(run, client, folder, SWEEP + "save: [logit]\n")
    assert list(client.job(record.id).results()) == ["logit"]
    assert list(Graph.saves(_graph(record))) == ["logit"]
    (folder / "sweep.yaml").write_text(SWEEP + "save: [logit, resdual]\n")
    wrong = run("sweep", "run", "sweep.yaml")
    assert (wrong.code, "sweep.yaml:10: save[1]: the experiment saves nothing called 'resdual'" in wrong.err) == (
        2,
        True,
    )
    assert "did you mean 'residual'?" in wrong.err


def _graph(record: JobRecord) -> Graph:
    from ndif_batch.graph.serialize import graph_from_json

    return graph_from_json(record.graph)


@pytest.mark.parametrize(("written", "number"), [("low", -10), ("normal", 0), ("high", 10), ("7", 7), ("-3", -3)])
def test_schedule_is_the_place_in_the_queue(run: Run, client: Client, folder: Path, written: str, number: int) -> None:
    (folder / "sweep.yaml").write_text(SWEEP + f"schedule: {{priority: {written}, max_retries: 5}}\n")
    run("sweep", "run", "sweep.yaml")
    record = client.job(1).record
    assert (record.priority, record.max_retries) == (number, 5)
    shown = json.loads(run("show", 1, "-o", "json").out)
    assert (shown["priority"], shown["max_retries"]) == (number, 5)


def test_without_a_schedule_a_job_is_like_any_other(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    run(
        "submit",
        "job.py",
        "-m",
        "toy",
        "--grid",
        "layer=0:4",
        "-S",
        "position=0",
        "-S",
        "prompt=the",
        "-S",
        "answer=far",
    )
    assert [(one.record.priority, one.record.max_retries) for one in client.jobs()] == [(0, 2)] * 2


def test_retention_is_the_files_or_the_settings_and_told(
    run: Run, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(text: str) -> Any:
        (folder / "sweep.yaml").write_text(text)
        run("sweep", "run", "sweep.yaml", "--no-reuse")
        return client.jobs()[0].record.retention_days

    assert kept(SWEEP) is None
    assert kept(SWEEP + "retention_days: 30\n") == 30
    monkeypatch.setenv("NDIF_BATCH_RETENTION_DAYS", "90")
    assert kept(SWEEP) == 90
    assert kept(SWEEP + "retention_days: 7\n") == 7
    assert "retention days" in run("sweep", "plan", "sweep.yaml").out
    drain(client)
    record = client.jobs()[0].record
    shown = json.loads(run("show", record.id, "-o", "json").out)
    assert record.finished_at is not None
    assert shown["expires_at"] == (record.finished_at + timedelta(days=7)).isoformat()


def test_results_cannot_be_kept_for_less_than_a_day(client: Client) -> None:
    plan = client.prepare(toy.reading(), Space((), {"layer": 0, "position": 0, "prompt": "the", "answer": 1}), toy.NAME)
    with pytest.raises(UsageError, match="retention_days is 0"):
        client.submit(plan, retention_days=0)


def test_resources_stay_with_the_job_and_what_workers_do_not_get_is_told(
    run: Run, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sweep.yaml").write_text(
        SWEEP + "resources: {partition: gpu, gpus_per_node: 1, mem_gb: 20, timeout_min: 60}\n"
    )
    told = run("sweep", "run", "sweep.yaml")
    assert (told.code, told.out) == (0, "Submitted job 1 (12 tasks)\n")
    assert "slurm_partition gpu (not set), gpus_per_node 1 (not set), mem_gb 20 (not set)" in told.err
    asked = {"slurm_partition": "gpu", "gpus_per_node": 1, "mem_gb": 20, "timeout_min": 60}
    assert json.loads(run("show", 1, "-o", "json").out)["resources"] == asked
    cluster = {
        "resources": {"slurm_partition": "gpu", "mem_gb": 10},
        "models": {"toy": {"resources": {"gpus_per_node": 2}}},
    }
    monkeypatch.setenv("NDIF_BATCH_CLUSTER", json.dumps(cluster))
    assert "asks for: mem_gb 20 (is 10)" in run("sweep", "plan", "sweep.yaml").err
    cluster["resources"] = {"slurm_partition": "gpu", "mem_gb": 64}
    monkeypatch.setenv("NDIF_BATCH_CLUSTER", json.dumps(cluster))
    assert run("sweep", "plan", "sweep.yaml").err == ""
    drain(client)
    assert client.job(1).results().attributes["job"]["options"]["resources"] == asked


def test_what_a_job_asks_for_does_not_make_it_another_experiment(run: Run, client: Client, folder: Path) -> None:
    ran(run, client, folder, SWEEP)
    wishes = "resources: {gpus_per_node: 1}\nschedule: {priority: high}\nretention_days: 3\n"
    assert set(status(client, ran(run, client, folder, SWEEP + wishes))) == {"REUSED"}


def test_resume_releases_retries_or_queues_again_and_runs_nothing_twice(run: Run, client: Client, folder: Path) -> None:
    none = run("sweep", "resume", "sweep.yaml")
    assert (none.code, "no job of this sweep has begun" in none.err, "sweep run" in none.err) == (3, True, True)
    run("sweep", "run", "sweep.yaml", "--hold")
    assert run("sweep", "resume", "sweep.yaml").out == "Job 1 is PENDING (0 of 12 tasks done)\n"
    drain(client, third)
    assert run("sweep", "resume", "sweep.yaml").out.startswith("Job 1 is PENDING")
    drain(client)
    assert run("sweep", "resume", "sweep.yaml").out == "Job 1 is COMPLETED (12 of 12 tasks done)\n"
    (folder / "sweep.yaml").write_text(SWEEP.replace("[0, 4]", "[0, 3]"))
    assert run("sweep", "resume", "sweep.yaml").code == 3
    run("sweep", "run", "sweep.yaml")
    run("cancel", 2)
    again = run("sweep", "resume", "sweep.yaml")
    assert again.code == 3, "a job that was cancelled before it began has nothing to go on from"


def test_resume_queues_again_what_was_cancelled_half_way(run: Run, client: Client, folder: Path) -> None:
    (folder / "sweep.yaml").write_text(SWEEP + "seeds: 200\n")
    run("sweep", "run", "sweep.yaml")
    with working(client, ToyEngine(), max_tokens=1) as here:
        assert here.run(Until(one=True)).shards_done == 1
    run("cancel", 1)
    again = run("sweep", "resume", "sweep.yaml").out
    assert again == "Submitted job 2 (2400 tasks, 600 of them re-used from job 1)\n"


REDUCED = """reduce:
  residual: {axis: [position], op: mean}
  top: {save: logit, axis: [layer, position], op: topk, k: 3}
"""


def test_reduce_keeps_statistics_in_place_of_values(run: Run, client: Client, folder: Path) -> None:
    (folder / "sweep.yaml").write_text(SWEEP + REDUCED)
    plan = json.loads(run("sweep", "plan", "sweep.yaml", "-o", "json").out)
    assert plan["arrays"] == {"residual": [4, 6], "top": [3]}
    assert plan["reduced"] == {
        "residual": "mean of residual over position",
        "top": "topk of logit over layer, position",
    }
    assert "residual is the mean of residual over position" in " ".join(run("sweep", "plan", "sweep.yaml").out.split())
    record = ran(run, client, folder, SWEEP + REDUCED)
    files = [file for file in record.store.rglob("*") if file.is_file()]
    assert len(files) == plan["files"]
    whole = ran(run, client, folder, SWEEP, "--no-reuse")
    values = np.asarray(client.job(whole.id).results()["residual"])
    np.testing.assert_allclose(np.asarray(client.job(record.id).results()["residual"]), values.mean(1), rtol=1e-6)
    listed = json.loads(run("results", "ls", record.id, "-o", "json").out)
    assert [(one["array"], one["dims"], one["shape"]) for one in listed] == [
        ("residual", ["layer", "residual_0"], [4, 6]),
        ("top", ["top_rank"], [3]),
    ]
    assert run("results", "show", record.id, "--save", "residual").code == 0
    assert run("results", "verify", record.id).code == 0
    assert "all are reduced" in run("results", "verify", record.id, "--recompute", 1).err
    assert run("results", "export", record.id, "out.npz").code == 0
    with np.load(folder / "out.npz") as out:
        assert out["top_position"].shape == (3,)
    resumed = run("sweep", "resume", "sweep.yaml").out
    assert resumed.startswith(f"Job {whole.id} is COMPLETED")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("residual: {axis: positoin, op: mean}", "11: reduce.residual.axis: no axis of the sweep is called 'positoin'"),
        ("residul: {axis: position, op: mean}", "11: reduce.residul: the experiment saves nothing called 'residul'"),
        ("residual: {axis: position, op: maen}", "11: reduce.residual.op: there is no op 'maen'"),
        ("residual: {axes: position, op: mean}", "11: reduce.residual.axes: unknown key 'axes'"),
        ("logit: {axis: position, op: cov}", "11: reduce.logit: cov needs vectors"),
    ],
)
def test_what_cannot_be_reduced_is_told_with_its_line(
    run: Run, client: Client, folder: Path, line: str, message: str
) -> None:
    (folder / "sweep.yaml").write_text(f"{SWEEP}reduce:\n  {line}\n")
    told = run("sweep", "plan", "sweep.yaml")
    assert (told.code, f"sweep.yaml:{message}" in " ".join(told.err.split())) == (2, True), told.err
