"""The whole way through the command line: submit, look, change, read results."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from safetensors.numpy import load_file

from ndif_batch.client import Client
from ndif_batch.errors import TaskError
from ndif_batch.measures import age, size
from ndif_batch.sweep.task import Task
from tests.cli.conftest import SWEEP, Run
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import working

GRID = ("--model", "toy", "-S", "prompt=the cat sat", "-S", "answer=Paris", "--grid", "layer=0:4")


def drain(client: Client, before: Callable[[Task], None] = lambda task: None) -> None:
    """Run every job with the toy engine."""
    with working(client, ToyEngine(before)) as worker:
        worker.run()


def third(task: Task) -> None:
    if task.id == 3:
        raise TaskError("no such thing [1/0]", node=2)


def test_a_sweep_from_plan_to_completed(run: Run, client: Client) -> None:
    plan = json.loads(run("sweep", "plan", "sweep.yaml", "-o", "json").out)
    assert (plan["tasks"], plan["axes"], plan["unique_prompts"]) == (12, {"layer": 4, "position": 3}, 1)
    assert plan["arrays"] == {"residual": [4, 3, 6], "logit": [4, 3]}
    assert plan["last_task"] == {"prompt": "the cat sat", "answer": "Paris", "layer": 3, "position": 2}
    assert plan["bytes"] >= 12 * 7 * 4
    assert plan["efforts"]["one run at a time"]["passes"] == 12
    assert plan["efforts"]["positions"]["passes"] == 1
    assert "one run at a time" in run("sweep", "plan", "sweep.yaml").out
    assert client.jobs() == []

    assert run("sweep", "run", "sweep.yaml").out == "Submitted job 1 (12 tasks)\n"
    header, line = run("ls").out.splitlines()
    assert header.split() == ["JOBID", "NAME", "USER", "MODEL", "ST", "TASKS", "DONE", "AGE", "REASON"]
    assert line.split()[:7] == ["1", "reading", "ada", "toy", "PD", "12", "0"]
    assert line.split()[-1] == "Resources"
    assert "no worker holds its model" in run("explain", 1).out

    drain(client)
    assert run("wait", 1).code == 0
    assert run("ls").out.splitlines()[1].split()[4:7] == ["CD", "12", "12"]
    shown = json.loads(run("show", 1, "-o", "json").out)
    assert (shown["state"], shown["done"], shown["axes"]) == ("COMPLETED", 12, {"layer": 4, "position": 3})
    assert shown["arrays"] == ["residual", "logit"]
    story = run("explain", 1).out
    assert [kind in story for kind in ("job.submitted", "shard.leased", "job.completed")] == [True] * 3
    logs = run("logs", 1)
    assert (logs.code, logs.err) == (0, "no task of job 1 has failed\n")


def test_submit_reads_values_by_the_type_of_their_parameter(run: Run, client: Client, folder: Path) -> None:
    (folder / "prompts.jsonl").write_text(
        '{"prompt": "the dog ran", "answer": "Rome"}\n{"prompt": "the", "answer": 3}\n'
    )
    arguments = ("submit", "job.py", "--model", "toy", "--grid", "prompt,answer=@prompts.jsonl")
    ran = run(*arguments, "--grid", "layer=1,3", "-S", "position=0", "--parsable", "--name", "mine", "--seed", 5)
    assert (ran.code, ran.out) == (0, "1\n")
    record = client.job(1).record
    assert (record.name, record.seed, record.tasks) == ("mine", 5, 4)
    assert record.space["axes"][0] == {
        "name": "prompt",
        "columns": {"prompt": ["the dog ran", "the"], "answer": ["Rome", 3]},
    }
    assert record.space["axes"][1]["columns"] == {"layer": [1, 3]}


def test_zip_puts_parameters_on_one_axis(run: Run, client: Client) -> None:
    run("submit", "job.py", *GRID[:-2], "--zip", "layer=0,2", "--zip", "position=1:3")
    (axis,) = client.job(1).record.space["axes"]
    assert axis == {"name": "point", "columns": {"layer": [0, 2], "position": {"range": [1, 3, 1]}}}


def test_a_graph_in_json_gives_the_same_job_as_the_file_it_was_traced_from(
    run: Run, client: Client, folder: Path
) -> None:
    (folder / "g.json").write_text(run("graph", "show", "job.py", "--model", "toy", "--json").out)
    run("submit", "g.json", *GRID, "-S", "position=0")
    run("submit", "job.py", *GRID, "-S", "position=0")
    first, second = client.job(1).record, client.job(2).record
    assert (first.graph_digest, first.space) == (second.graph_digest, second.space)
    assert run("graph", "validate", "g.json").out.strip() == first.graph_digest
    assert "getitem" in run("graph", "show", "g.json").out


def test_a_graphs_plan_tells_what_running_it_computes(run: Run, client: Client, folder: Path) -> None:
    (folder / "g.json").write_text(run("graph", "show", "job.py", "--model", "toy", "--json").out)
    values = ("prompt=the cat sat", "answer=Paris", "layer=1")
    bound = ("-m", "toy", *(part for value in values for part in ("-S", value)), "--grid", "position=0:3", "--plan")
    for file in ("job.py", "g.json"):
        plan = json.loads(run("graph", "show", file, *bound, "-o", "json").out)
        assert (plan["tasks"], plan["unique_prompts"], plan["passes_of_a_task"]) == (3, 1, 1)
        first, *_, last = plan["efforts"].values()
        assert (first["passes"], last["passes"], first["nodes"] > last["nodes"]) == (3, 1, True)
        assert first["bytes"] > last["bytes"] > 0
    shown = run("graph", "show", "g.json", *bound).out
    assert all(means in shown for means in plan["efforts"])
    assert "NODES RUN" in shown
    refused = [("--plan",), ("-m", "toy", "--plan"), ("-S", "position=0"), ("--batch-tokens", "9")]
    assert [run("graph", "show", "g.json", *arguments).code for arguments in refused] == [2] * 4


def test_a_dry_run_queues_nothing_and_a_key_queues_once(run: Run, client: Client) -> None:
    arguments = ("submit", "job.py", *GRID, "-S", "position=0")
    assert "tasks" in run(*arguments, "--dry-run").out
    assert client.jobs() == []
    assert run(*arguments, "--key", "k", "--parsable").out == "1\n"
    assert run(*arguments, "--key", "k", "--parsable").out == "1\n"


def test_hold_release_cancel_and_retry(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml", "--hold")
    assert run("ls").out.splitlines()[1].split()[-1] == "Held"
    assert run("release", 1).err == "job 1 is PENDING\n"
    assert run("hold", 1).err == "job 1 is HELD\n"
    run("release", 1)
    drain(client, third)
    assert run("retry", 1).code == 0
    drain(client)
    assert client.job(1).record.state == "COMPLETED"
    run("sweep", "run", "sweep.yaml")
    ran = run("cancel", 9, 2)
    assert ran.code == 3
    assert "error: there is no job 9" in ran.err
    assert "job 2 is CANCELLED" in ran.err


def test_failed_tasks_are_told_with_what_they_bound(run: Run, client: Client) -> None:
    run("sweep", "run", "sweep.yaml")
    drain(client, third)
    ran = run("wait", 1)
    assert ran.code == 1
    assert "job 1 FAILED: 1 of 12 tasks failed" in ran.err
    assert "task 3 (layer=1, position=0): no such thing [1/0]" in ran.err
    (row,) = json.loads(run("logs", 1, "-o", "json").out)
    assert row == {"task": "3 (layer=1, position=0)", "code": "task", "node": 2, "message": "no such thing [1/0]"}
    assert json.loads(run("ls", "-o", "jsonl").out)["failed"] == 1


def test_listings_are_filtered_and_come_in_every_format(run: Run, client: Client) -> None:
    for _ in range(3):
        run("sweep", "run", "sweep.yaml")
    run("cancel", 2)
    assert [row["id"] for row in json.loads(run("ls", "-o", "json").out)] == [3, 2, 1]
    assert [json.loads(line)["id"] for line in run("ls", "-t", "cancelled", "-o", "jsonl").out.splitlines()] == [2]
    assert [row["id"] for row in csv.DictReader(io.StringIO(run("ls", "-n", 2, "-o", "csv").out))] == ["3", "2"]
    assert json.loads(run("ls", "-u", "bob", "-o", "json").out) == []


WRITING = """from ndif_batch import param


def build(lm):
    with lm.generate(param("prompt"), max_new_tokens=3, stop=2) as t:
        lm.model.layers[param("layer")].output += 1.0
        t.tokens.save("written", dims=("step",))
    return t
"""


def test_generated_tokens_are_shown_as_text_of_each_task_s_length(run: Run, client: Client, folder: Path) -> None:
    def written(task: Task, saves: dict[str, Any]) -> None:
        saves.clear()
        saves["written"] = np.arange(1 + int(str(task.bindings["layer"])))

    (folder / "writing.py").write_text(WRITING)
    sweep = "version: 1\nname: writing\nmodel: toy\njob: writing.py\nparameters:\n"
    (folder / "writing.yaml").write_text(f"{sweep}  layer: {{range: [0, 3]}}\n  prompt: the cat\n")
    run("sweep", "run", "writing.yaml")
    with working(client, ToyEngine(after=written)) as worker:
        worker.run()
    shown = run("results", "show", 1)
    assert [line.split() for line in shown.out.splitlines()][-3:] == [
        ["0", "the"],
        ["1", "the", "cat"],
        ["2", "the", "cat", "sat"],
    ]
    assert shown.code == 0
    one = run("results", "show", 1, "--save", "written", "--at", "layer=1")
    assert one.out.splitlines()[-1].split() == ["the", "cat"]
    assert run("results", "show", 1, "--mean", "layer").code == 2
    assert run("results", "show", 1, "--at", "step=0").code == 2


def test_results_are_listed_drawn_printed_exported_and_verified(run: Run, client: Client, folder: Path) -> None:
    run("sweep", "run", "sweep.yaml")
    drain(client)
    (row,) = json.loads(run("results", "ls", "-o", "json").out)
    assert (row["job"], row["arrays"]) == (1, "residual,logit")
    arrays = {row["array"]: row for row in json.loads(run("results", "ls", 1, "-o", "json").out)}
    assert arrays["residual"]["shape"] == [4, 3, 6]

    drawn = run("results", "show", 1, "--plot", "out.png")
    assert "showing logit" in drawn.err
    assert "rows: layer   columns: position" in drawn.out
    assert ["the", "cat", "sat"] in [line.split() for line in drawn.out.splitlines()]
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    several = run("results", "show", 1, "--save", "residual", "--plot", "several.png")
    assert [f"residual of reading (1) at position={k}   rows: layer" in several.out for k in range(3)] == [True] * 3
    assert several.err == "wrote several.png\n"
    one = run("results", "show", 1, "--save", "residual", "--at", "layer=2", "--at", "position=1")
    assert one.code == 0
    assert "215" in one.out
    assert run("results", "show", 1, "--save", "residual", "--mean", "position", "--at", "layer=1").code == 0

    rows = json.loads(
        run("results", "get", 1, "residual", "--at", "layer=3", "--at", "residual_0=-1", "-o", "json").out
    )
    assert [row["residual"] for row in rows] == [305.0, 315.0, 325.0]
    assert {row["position"] for row in rows} == {0, 1, 2}
    table = list(csv.DictReader(io.StringIO(run("results", "get", 1, "-o", "csv").out)))
    assert len(table) == 12
    assert {"layer", "position", "logit", "task_status"} <= set(table[0])

    assert run("results", "export", 1, "all.xyz").code == 2
    assert run("results", "verify", 1).code == 0
    store = client.job(1).record.store
    shard = next(path for path in sorted(store.rglob("*")) if path.is_file() and "/logit/c" in str(path))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00\x01")
    damaged = run("results", "verify", 1, "-o", "json")
    assert damaged.code == 1
    assert json.loads(damaged.out)[0]["file"].startswith("logit/")


FIXED = {"layer": "3", "position": "2", "prompt": "the cat sat", "answer": "Paris"}
AXES = {"layer": "0:4", "position": "0:3", "answer": "Paris,Rome", "seed": "0:2"}


@pytest.mark.parametrize("axes", range(5))
def test_jobs_of_any_number_of_axes_are_drawn_and_exported(run: Run, client: Client, folder: Path, axes: int) -> None:
    grid = dict(list(AXES.items())[:axes])
    fixed = [option for name, value in FIXED.items() if name not in grid for option in ("-S", f"{name}={value}")]
    varying = [option for name, values in grid.items() for option in ("--grid", f"{name}={values}")]
    assert run("submit", "job.py", "--model", "toy", *fixed, *varying, "--name", "axes").code == 0
    drain(client)
    shown = run("results", "show", 1, "--save", "logit", "--plot", "out.png")
    assert shown.code == 0
    lines = [line.split() for line in shown.out.splitlines()]
    match axes:
        case 0:
            assert lines == [["logit", "of", "axes", "(1)", lines[0][-1]]]
            assert float(lines[0][-1]) >= 3
        case 1:
            assert lines[0] == ["layer", "logit", "of", "axes", "(1)"]
            assert [line[0] for line in lines[1:]] == ["0", "1", "2", "3"]
        case 2 | 3 | 4:
            assert shown.out.count("rows: layer   columns: position") == 2 ** (axes - 2)
            assert shown.out.count("at answer=Rome") == {2: 0, 3: 1, 4: 2}[axes]
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")

    shape = (4, 3, 2, 2)[:axes]
    for name in ("all.safetensors", "all.npz", "all.parquet", "all.csv"):
        assert run("results", "export", 1, name).code == 0
    assert np.load(folder / "all.npz")["residual"].shape == (*shape, 6)
    assert load_file(folder / "all.safetensors")["residual"].shape == (*shape, 6)
    for table in (pandas.read_csv(folder / "all.csv"), pandas.read_parquet(folder / "all.parquet").reset_index()):
        assert list(table.columns) == ["task", *grid, "logit", "task_status"]
        np.testing.assert_array_equal(table["logit"], np.asarray(client.job(1).results()["logit"]).reshape(-1))


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("layr=1", 2, "there is no dimension or coordinate 'layr'"),
        ("layer=9", 3, "'layer' has no label '9'"),
        ("layer", 2, "'layer' is not name=value"),
        ("residual_0=6", 3, "'residual_0' has no label '6'"),
    ],
)
def test_a_wrong_place_of_a_result_is_named(run: Run, client: Client, option: str, code: int, message: str) -> None:
    run("sweep", "run", "sweep.yaml")
    drain(client)
    ran = run("results", "show", 1, "--save", "residual", "--at", option)
    assert ran.code == code
    assert message in ran.err
    unknown = run("results", "show", 1, "--save", "residul")
    assert unknown.code == 3
    assert "hint: did you mean 'residual'?" in unknown.err


def test_seeds_are_an_axis_of_the_results(run: Run, client: Client, folder: Path) -> None:
    (folder / "sweep.yaml").write_text(SWEEP + "seeds: 2\n")
    run("sweep", "run", "sweep.yaml")
    drain(client)
    values = np.asarray(client.job(1).results()["logit"][...])
    assert values.shape == (4, 3, 2)
    assert np.unique(values[0, :, 0]).size == 1
    assert not np.array_equal(values[..., 0], values[..., 1])


def test_variables_of_a_sweep_are_set_on_the_command_line(run: Run, client: Client, folder: Path) -> None:
    text = SWEEP.replace("[0, 4]", '[0, "${layers}"]') + "variables: {layers: 4}\n"
    (folder / "sweep.yaml").write_text(text)
    assert json.loads(run("sweep", "plan", "sweep.yaml", "-S", "layers=2", "-o", "json").out)["tasks"] == 6


def test_models_are_listed_and_their_sites_found(run: Run, client: Client) -> None:
    (row,) = json.loads(run("model", "ls", "-o", "json").out)
    assert (row["name"], row["dtype"]) == ("toy", "float32")
    assert json.loads(run("model", "show", "toy", "-o", "json").out)["sites"] == 10
    (site,) = json.loads(run("model", "show", "toy", "--sites", "*.2.output", "-o", "json").out)
    assert site == {"site": "model.layers.2.output", "shape": "float32 [1, tokens, 6]", "refused": ""}


def test_the_database_is_made_and_checked(run: Run) -> None:
    assert run("db", "check").code == 6
    assert run("db", "upgrade").code == 0
    assert run("db", "check").code == 0


def test_settings_are_shown_with_where_they_come_from_and_no_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_BATCH_DATABASE_URL", "postgresql+psycopg://ada:secret@host/db")
    ran = run("config", "show", "-o", "json")
    rows = {row["setting"]: row for row in json.loads(ran.out)}
    assert rows["user"] == {"setting": "user", "value": "ada", "from": "variable", "variable": "NDIF_BATCH_USER"}
    assert rows["lease_seconds"]["from"] == "default"
    assert (rows["cluster.launcher"]["value"], rows["cluster.launcher"]["from"]) == ("local", "default")
    assert rows["database_url"]["value"] == "postgresql+psycopg://ada:***@host/db"
    assert "secret" not in ran.out


def test_ages_and_sizes_have_one_unit() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    ages = [age(now - timedelta(seconds=seconds), now) for seconds in (0, 59, 60, 3600, 86400 * 3)]
    assert ages == ["0s", "59s", "1m", "1h", "3d"]
    assert [size(count) for count in (0, 1023, 1536, 3 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
