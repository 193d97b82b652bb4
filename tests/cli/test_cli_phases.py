"""A sweep file of several phases: later ones take what earlier ones save; all are planned, queued and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ndif_batch.client import Client
from ndif_batch.queue.records import JobState
from tests.cli.conftest import Run
from tests.cli.test_cli_jobs import drain

USING = """from ndif_batch import param


def build(lm):
    with lm.trace(param("prompt")) as t:
        lm.model.layers[param("layer")].output[0, param("position")] += param("mean", "tensor")[param("layer")]
        lm.lm_head.output[0, -1, param("answer")].save("logit")
    return t
"""
PHASES = """version: 1
name: study
model: toy
phases:
- name: means
  job: job.py
  parameters:
    layer: {range: [0, 4]}
    position: {range: [0, 3]}
    prompt: the cat sat
    answer: Paris
  reduce:
    residual: {axis: position, op: mean}
- name: ablate
  job: using.py
  parameters:
    layer: {range: [0, 4]}
    position: 1
    prompt: the cat sat
    answer: Paris
    mean: {phase: means, save: residual}
"""


@pytest.fixture
def study(folder: Path) -> Path:
    (folder / "using.py").write_text(USING)
    (folder / "sweep.yaml").write_text(PHASES)
    return folder


def states(client: Client) -> list[str]:
    return [job.state.value for job in reversed(client.jobs())]


def test_phases_are_planned_queued_and_run_one_after_the_other(run: Run, client: Client, study: Path) -> None:
    lines = run("sweep", "plan", "sweep.yaml", "-o", "json").out
    decoder, plans, at = json.JSONDecoder(), [], 0
    while at < len(lines.rstrip()):
        plan, end = decoder.raw_decode(lines[at:].lstrip())
        at += len(lines[at:]) - len(lines[at:].lstrip()) + end
        plans.append(plan)
    assert [plan["name"] for plan in plans] == ["study-means", "study-ablate"]
    assert client.jobs() == []
    told = run("sweep", "run", "sweep.yaml", "--parsable")
    assert told.out.split() == ["1", "2"], told.err
    second = client.job(2).record
    assert (states(client), second.after, second.name) == (["PENDING", "HELD"], (1,), "study-ablate")
    assert "job 2 (study-ablate) is HELD: Dependency: it comes after job 1" in run("explain", 2).out
    assert json.loads(run("ls", "-o", "json").out)[0]["reason"] == "Dependency"
    assert "comes after 1" in run("release", 2).err
    drain(client)
    assert states(client) == ["COMPLETED", "COMPLETED"]
    again = run("sweep", "run", "sweep.yaml").out.splitlines()
    assert again == ["Submitted job 3 (12 tasks)", "Submitted job 4 (4 tasks, 4 of them re-used from job 2)"]


def test_a_study_whose_end_was_cancelled_is_resumed(run: Run, client: Client, study: Path) -> None:
    assert run("sweep", "resume", "sweep.yaml").code == 3
    run("sweep", "run", "sweep.yaml")
    run("cancel", 2)
    drain(client)
    assert states(client) == ["COMPLETED", "CANCELLED"]
    resumed = run("sweep", "resume", "sweep.yaml").out.splitlines()
    assert resumed == ["Job 1 is COMPLETED (12 of 12 tasks done)", "Submitted job 3 (4 tasks)"]
    drain(client)
    assert client.job(3).state is JobState.COMPLETED
    assert run("sweep", "resume", "sweep.yaml").out.count("is COMPLETED") == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("phase: means", "phase: maens", "21: phases[1].parameters.mean.phase: no phase before this one is called"),
        ("save: residual}", "save: residul}", "21: phases[1].parameters.mean.save: that phase saves nothing called"),
        ("op: mean}", "op: maen}", "13: phases[0].reduce.residual.op: there is no op 'maen'"),
        ("  job: using.py", "  jbo: using.py", "15: phases[1].jbo: unknown key 'jbo'"),
        ("name: ablate", "name: means", "4: phases: two phases are called 'means'"),
        ("model: toy\n", "model: toy\njob: job.py\n", "4: job: job belongs into a phase"),
        ("    position: 1\n", "", "16: phases[1].parameters: the experiment's parameter 'position' has no value"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_nothing_is_queued(
    run: Run, client: Client, study: Path, old: str, new: str, message: str
) -> None:
    (study / "sweep.yaml").write_text(PHASES.replace(old, new))
    told = run("sweep", "run", "sweep.yaml")
    assert (told.code in (2, 3), f"sweep.yaml:{message}" in " ".join(told.err.split())) == (True, True), told.err
    assert client.jobs() == []


def test_a_job_is_submitted_after_another_one(run: Run, client: Client, folder: Path) -> None:
    at = ("-S", "prompt=the cat", "-S", "answer=Paris", "-S", "layer=0", "-S", "position=0")
    assert run("submit", "job.py", "-m", "toy", *at, "--parsable").out == "1\n"
    assert run("submit", "job.py", "-m", "toy", *at, "--after", 1, "--no-reuse", "--parsable").out == "2\n"
    assert states(client) == ["PENDING", "HELD"]
    assert "there is no job 9" in run("submit", "job.py", "-m", "toy", *at, "--after", 9).err
    drain(client)
    assert states(client) == ["COMPLETED", "COMPLETED"]
