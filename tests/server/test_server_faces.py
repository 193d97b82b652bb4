"""The command line and the Python client do the same beside the database and through a server."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from ndif_batch import worker
from ndif_batch.client import Client
from ndif_batch.config import Settings
from ndif_batch.errors import ConflictError, NotFoundError, SettingsError, TaskError, UnavailableError, UsageError
from ndif_batch.queue.cluster import Role
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task
from tests import tiny, toy
from tests.cli.conftest import Run, folder, run, settled
from tests.server.serving import Served, serving
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, submit, working

__all__ = ["folder", "run", "settled"]

EMBEDDED, SERVED = "embedded", "served"
GRID = ("--model", "toy", "-S", "prompt=the cat sat", "-S", "answer=Paris", "--grid", "layer=0:4")


@dataclass(frozen=True)
class Stage:
    """The client beside the database, and the settings of who uses it in one way or the other."""

    behind: Client
    settings: Settings

    def drain(self, fails: int | None = None) -> None:
        """Run every job with the toy engine; task number ``fails`` fails."""

        def before(task: Task) -> None:
            if task.id == fails:
                raise TaskError("no such thing", node=2)

        with working(self.behind, ToyEngine(before)) as worker:
            worker.run()


@pytest.fixture(params=[EMBEDDED, SERVED])
def stage(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """One queue; who is served has a data directory of their own, with nothing in it."""
    with toy.client(folder) as behind, serving(behind.queue, behind.settings) as served:
        behind.queue.set_role("ada", Role.ADMIN, actor="test")
        if request.param == EMBEDDED:
            yield Stage(behind, behind.settings)
            return
        token = behind.queue.create_token("ada", actor="test").text
        elsewhere = folder / "elsewhere"
        values = {"URL": served.url, "TOKEN": token, "DATA_DIR": elsewhere, "MODEL_CACHE": elsewhere / "models"}
        for name, value in (values | {"USER": "somebody"}).items():
            monkeypatch.setenv(f"NDIF_BATCH_{name}", str(value))
        yield Stage(behind, Settings())


def test_a_sweep_from_plan_to_completed(run: Run, stage: Stage) -> None:
    plan = json.loads(run("sweep", "plan", "sweep.yaml", "-o", "json").out)
    assert (plan["tasks"], plan["reused_tasks"], plan["arrays"]) == (12, 0, {"residual": [4, 3, 6], "logit": [4, 3]})
    assert run("sweep", "run", "sweep.yaml").out == "Submitted job 1 (12 tasks)\n"
    line = run("ls").out.splitlines()[1].split()
    assert (line[:7], line[-1]) == (["1", "reading", "ada", "toy", "PD", "12", "0"], "Resources")
    assert "no worker holds its model" in run("explain", 1).out
    stage.drain()
    assert run("wait", 1).code == 0
    assert run("watch", 1).code == 0
    shown = json.loads(run("show", 1, "-o", "json").out)
    assert (shown["state"], shown["done"], shown["arrays"]) == ("COMPLETED", 12, ["residual", "logit"])
    assert shown["archive"] == str(stage.behind.job(1).record.store)
    story = run("explain", 1).out
    assert all(kind in story for kind in ("job.submitted", "shard.leased", "job.completed"))
    again = json.loads(run("sweep", "plan", "sweep.yaml", "-o", "json").out)
    assert (again["reused_tasks"], again["reused_from"]) == (12, [1])
    assert run("sweep", "run", "sweep.yaml").out == "Submitted job 2 (12 tasks, 12 of them re-used from job 1)\n"


def test_what_the_sender_names_is_what_is_queued(run: Run, stage: Stage) -> None:
    more = ("-S", "position=0", "--parsable", "--name", "mine", "--seed", 5, "--key", "k", "--hold")
    assert run("submit", "job.py", *GRID, *more).out == "1\n"
    assert run("submit", "job.py", *GRID, *more).out == "1\n"
    record = stage.behind.job(1).record
    assert (record.name, record.user, record.seed, record.key, record.tasks) == ("mine", "ada", 5, "k", 4)
    assert (record.state, record.archive) == (JobState.HELD, str(stage.behind.settings.archive))
    assert record.space["constants"] == {"prompt": "the cat sat", "answer": "Paris", "position": 0}
    other = run("submit", "job.py", *GRID, "-S", "position=1", "--key", "k")
    assert (other.code, "key 'k' is taken by job 1" in other.err) == (2, True)


def test_jobs_are_held_released_cancelled_and_retried(run: Run, stage: Stage) -> None:
    submit(stage.behind)
    assert run("hold", 1).err == "job 1 is HELD\n"
    assert (run("hold", 1).code, run("release", 1).err) == (2, "job 1 is PENDING\n")
    stage.drain(fails=3)
    failed = run("wait", 1)
    assert (failed.code, "task 3 (layer=1, position=0): no such thing" in failed.err) == (1, True)
    (logged,) = json.loads(run("logs", 1, "-o", "json").out)
    assert (logged["task"], logged["code"], logged["node"]) == ("3 (layer=1, position=0)", "task", 2)
    assert run("retry", 1).err == "job 1 is RUNNING\n"
    assert run("cancel", 1).err == "job 1 is CANCELLED\n"
    missing = run("cancel", 9)
    assert (missing.code, missing.err) == (3, "error: there is no job 9\n")
    assert [event.actor for event in stage.behind.queue.events(1) if event.kind == "job.cancelled"] == ["ada"]


def test_jobs_are_given_priority_in_words_and_numbers(run: Run, stage: Stage) -> None:
    jobs = [submit(stage.behind, seed=seed).id for seed in range(2)]
    assert run("priority", *jobs, "high").err == "job 1 has the priority 10\njob 2 has the priority 10\n"
    assert run("priority", 2, 3).code == 0
    assert [stage.behind.job(job).record.priority for job in jobs] == [10, 3]
    assert (run("priority", 1, "hihg").code, run("priority", 9, "low").code) == (2, 3)
    assert run("priority", 1, "--", -4).code == 0
    stage.behind.queue.set_role("root", Role.ADMIN, actor="test")
    stage.behind.queue.set_role("ada", Role.USER, actor="test")
    refused = run("priority", 1, "high")
    assert refused.code == 4
    assert stage.behind.job(1).record.priority == -4


def test_results_are_listed_drawn_printed_exported_verified_and_removed(run: Run, stage: Stage, tmp_path: Path) -> None:
    job = submit(stage.behind)
    assert run("results", "ls").out.split() == ["JOB", "NAME", "ARRAYS", "PATH"]
    none = run("results", "show", 1)
    assert (none.code, "job 1 has no results yet: it is PENDING" in none.err) == (3, True)
    stage.drain()
    assert json.loads(run("results", "ls", "-o", "json").out)[0]["path"] == str(job.record.store)
    arrays = {one["array"]: one["shape"] for one in json.loads(run("results", "ls", 1, "-o", "json").out)}
    assert arrays == {"residual": [4, 3, 6], "logit": [4, 3]}
    assert "logit of residual-logit (1)" in run("results", "show", 1).out
    expected = np.asarray(job.results()["logit"])
    rows = list(csv.DictReader(io.StringIO(run("results", "get", 1, "logit", "-o", "csv").out)))
    assert [float(row["logit"]) for row in rows] == pytest.approx(expected.reshape(-1).tolist())
    assert run("results", "export", 1, tmp_path / "out.npz").code == 0
    with np.load(tmp_path / "out.npz") as exported:
        assert np.array_equal(exported["logit"], expected)
    assert run("results", "verify", 1).err == "every file is as it was written\n"
    (job.record.store / "logit" / "c.0.0").write_bytes(b"damaged")
    damaged = run("results", "verify", 1, "-o", "json")
    assert (damaged.code, json.loads(damaged.out)[0]["file"]) == (1, "logit/c.0.0")
    assert "the results of job 1 are deleted" in run("results", "rm", 1).err
    assert not job.record.store.exists()
    gone = run("results", "get", 1)
    assert (gone.code, "the results of job 1 were removed on" in gone.err) == (3, True)


def test_models_are_listed_and_shown(run: Run, stage: Stage) -> None:
    (listed,) = json.loads(run("model", "ls", "-o", "json").out)
    shown = json.loads(run("model", "show", "toy", "-o", "json").out)
    assert (listed["name"], shown["digest"], shown["modules"]) == ("toy", "d" * 64, 7)
    unknown = run("model", "show", "tyo")
    assert (unknown.code, "did you mean 'toy'?" in unknown.err) == (3, True)


def test_models_are_loaded_pinned_evicted_and_removed(run: Run, stage: Stage) -> None:
    queue = stage.behind.queue
    assert run("model", "pin", "toy", "--pilots", 2).code == 0
    assert run("model", "load", "toy").err == "a pilot loads model toy as soon as there is room\n"
    assert queue.settings() == {"load:toy": True, "pin:toy": 2}
    assert json.loads(run("model", "ls", "-o", "json").out)[0]["pinned"] == 2
    queue.add_pilot("toy-1", "toy", "local", {}, actor="test")
    assert run("model", "evict", "toy").err == "model toy: 1 pilots are draining: toy-1\n"
    assert (queue.pilots(), queue.settings()) == ([], {"load:toy": False, "pin:toy": 0})
    job = submit(stage.behind)
    assert (run("model", "rm", "toy").code, run("cancel", job.id).code, run("model", "rm", "toy").code) == (2, 0, 0)
    assert json.loads(run("model", "ls", "-o", "json").out) == []
    assert run("submit", "job.py", *GRID, "-S", "position=0").code == 2
    assert {event.actor for event in queue.events(limit=7)} == {"ada"}
    assert (run("model", "load", "toy").code, run("model", "evict", "none").code) == (2, 3)


def test_a_model_is_added_and_its_results_are_recomputed(run: Run, stage: Stage, tmp_path: Path) -> None:
    (source := tmp_path / "source").mkdir()
    tiny.write(source)
    assert run("model", "add", source, "--name", "../tiny").code == 2
    assert run("model", "add", tmp_path / "none", "--name", "tiny").code == 3
    added = run("model", "add", source, "--name", "tiny")
    assert (added.code, "model tiny is ready: float32" in added.err) == (0, True)
    assert (stage.behind.settings.model_cache / "tiny").is_dir()
    grid = ("--model", "tiny", "-S", "prompt=the cat sat", "-S", "answer=Paris", "--grid", "layer=0:2")
    assert run("submit", "job.py", *grid, "-S", "position=0").code == 0
    worker.run(stage.behind.settings, "tiny", until_idle=True, device="cpu")
    again = run("results", "verify", 1, "--recompute", 5, "-o", "json")
    assert (again.code, [row["array"] for row in json.loads(again.out)]) == (0, ["logit", "residual"])
    assert "2 tasks run again alone are the same" in again.err


def test_an_empty_queue_is_looked_at(run: Run, stage: Stage) -> None:
    for verb in ("ls", "results ls", "cluster status", "cluster pilots", "top --once", "token ls"):
        ran = run(*verb.split())
        assert (ran.code, ran.err) == (0, ""), verb


def test_the_whole_queue_is_one_picture(run: Run, stage: Stage) -> None:
    for seed in range(2):
        submit(stage.behind, seed=seed, name=f"job{seed}")
    stage.drain()
    submit(stage.behind, seed=3, name="waits")
    stage.behind.queue.register_worker("toy", "n7", 1)
    lines = run("top", "--once").out.splitlines()
    assert lines[0] == "jobs: 1 pending, 2 completed · 12 tasks wait · 1 workers"
    assert lines[2].split() == ["MODEL", "PILOTS", "WORKERS", "BUSY", "WAITING", "TASKS", "OLDEST", "TOKENS/S"]
    assert lines[3].split()[:5] == ["toy", "0", "1", "4", "12"]
    assert lines[6].split()[1:4] == ["toy", "n7", "STARTING"]
    jobs = [line.split() for line in lines[9:]]
    assert [job[1] for job in jobs] == ["waits", "job1", "job0"]
    assert jobs[0][-1] == "ModelLoading"
    assert "██████████ 100%" in lines[10]


def test_a_cancelled_sweep_is_resumed(run: Run, stage: Stage) -> None:
    assert run("sweep", "resume", "sweep.yaml").code == 3
    assert run("sweep", "run", "sweep.yaml").code == 0
    assert run("hold", 1).code == 0
    resumed = run("sweep", "resume", "sweep.yaml")
    assert (resumed.code, stage.behind.job(1).state) == (0, JobState.PENDING)


def test_users_and_tokens_are_made_changed_and_revoked(run: Run, stage: Stage) -> None:
    assert run("user", "create", "zoe").code == 0
    assert run("user", "create", "zoe").code == 2
    assert run("user", "set", "zoe", "--shares", 2, "--pending-tasks", 7, "--role", "reader").code == 0
    row = next(one for one in json.loads(run("user", "ls", "-o", "json").out) if one["user"] == "zoe")
    assert (row["role"], row["shares"], row["pending-tasks"], row["archive-bytes"]) == ("reader", 2.0, 7, None)
    made = run("token", "create", "zoe", "--name", "laptop", "--days", "30")
    assert stage.behind.queue.authenticate(made.out.strip()).user == "zoe"
    (token,) = json.loads(run("token", "ls", "-u", "zoe", "-o", "json").out)
    assert run("token", "revoke", token["id"]).code == 0
    assert stage.behind.queue.token(token["id"]).revoked_at is not None
    assert run("user", "revoke", "zoe").err == "0 tokens of zoe are revoked\n"
    assert {event.actor for event in stage.behind.queue.events(limit=4)} == {"ada"}


def test_what_is_made_under_a_key_is_made_once(run: Run, stage: Stage) -> None:
    create = ("user", "create", "zoe", "--key", "k1")
    assert [run(*create).code, run(*create).code] == [0, 0]
    other = run("user", "create", "zoe", "--role", "reader", "--key", "k1")
    assert (other.code, "error: the key 'k1' was used for another request" in other.err) == (2, True)
    made, again = (run("token", "create", "zoe", "--key", "k2") for _ in range(2))
    (token,) = stage.behind.queue.tokens("zoe")
    assert stage.behind.queue.authenticate(made.out.strip()).user == "zoe"
    assert (again.code, again.out) == (2, "")
    assert f"token {token.id} was made under this key before, and is not kept" in again.err
    assert run("token", "create", "zoe", "--key", "é").code == 2
    with Client(stage.settings) as client:
        client.keyed("k3").pause(actor="ada")
        client.service.resume(actor="ada")
        client.keyed("k3").pause(actor="ada")
        assert client.service.settings()["pause"] is False


def test_the_cluster_is_looked_at_and_paused(run: Run, stage: Stage) -> None:
    submit(stage.behind)
    assert run("cluster", "pause", "--model", "toy").err == "toy is paused\n"
    (row,) = json.loads(run("cluster", "status", "-o", "json").out)
    assert (row["model"], row["waiting"], row["tasks"], row["paused"]) == ("toy", 4, 12, True)
    assert run("cluster", "resume", "--model", "toy").code == 0
    assert stage.behind.queue.settings() == {"pause:toy": False}
    assert json.loads(run("cluster", "pilots", "-o", "json").out) == []
    stage.behind.queue.add_pilot("toy-1", "toy", "local", {}, actor="test")
    assert json.loads(run("cluster", "pilots", "-o", "json").out)[0]["pilot"] == "toy-1"
    assert run("cluster", "drain", "toy-1").err == "pilot toy-1 is draining\n"
    assert run("cluster", "kill", "none").code == 3


class TestPython:
    """The client's own methods."""

    def test_an_experiment_is_submitted_followed_and_read(self, stage: Stage) -> None:
        with Client(stage.settings) as client:
            lm = client.language_model("toy")
            with lm.trace("the cat sat") as t:
                lm.model.layers[2].output[0, -1].save("residual")
            job = t.submit()
            assert (job.state, job.record.user) == (JobState.PENDING, "ada")
            with pytest.raises(NotFoundError, match="has no results yet"):
                job.results()
            assert list(job.cancel().failures()) == []
            with pytest.raises(ConflictError, match="cannot be cancelled"):
                job.cancel()

    def test_results_are_the_same_in_every_form(self, stage: Stage) -> None:
        mine = submit(stage.behind)
        stage.drain()
        with Client(stage.settings) as client:
            job = client.job(mine.id)
            assert_right(job)
            there, here = mine.results(), job.results()
            assert here.dataframe().equals(there.dataframe())
            assert here.xarray().equals(there.xarray())
            assert here.attributes == there.attributes
            assert np.array_equal(here.torch("residual", layer=2), there.torch("residual", layer=2))
            assert [task.id for task in job.as_completed()] == list(range(12))
            assert job.verified() == mine.verified()
            assert [one.id for one in client.jobs(state=JobState.COMPLETED)] == [mine.id]
        assert np.asarray(here["logit"][1, 2]) == np.asarray(there["logit"][1, 2])

    def test_a_constant_tensor_comes_along(self, stage: Stage) -> None:
        with Client(stage.settings) as client:
            lm = client.language_model("toy")
            with lm.trace("the cat sat") as t:
                layer = lm.model.layers[1].output[0, -1]
                (layer * np.arange(6, dtype=np.float32)).save("scaled")
            job = t.submit()
        (digest,) = {file.stem for file in stage.behind.settings.blobs.iterdir()}
        assert digest in json.dumps(job.record.graph)

    def test_a_wrong_graph_is_refused_with_its_node(self, stage: Stage) -> None:
        space = Space((Axis("layer", {"layer": [9]}),), {"prompt": "the", "answer": 1, "position": 0})
        with Client(stage.settings) as client, pytest.raises(UsageError, match=r"model\.layers\.9"):
            client.prepare(toy.reading(), space, "toy")


class TestServed:
    """What there is only with a server."""

    @pytest.fixture
    def served(self, folder: Path) -> Iterator[Served]:
        with toy.client(folder) as behind, serving(behind.queue, behind.settings) as found:
            yield found

    def test_the_url_may_be_an_option_and_the_token_a_file(
        self, run: Run, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "token"
        file.write_text(served.tokens["ada"] + "\n")
        file.chmod(0o600)
        assert run("--url", served.url, "ls").out.split()[0] == "JOBID"
        file.chmod(0o640)
        open_to_others = run("--url", served.url, "ls")
        assert (open_to_others.code, "others may read the token" in open_to_others.err) == (2, True)
        file.unlink()
        assert "there is no token for" in run("--url", served.url, "ls").err
        monkeypatch.setenv("NDIF_BATCH_TOKEN", "wrong")
        wrong = run("--url", served.url, "ls")
        assert (wrong.code, "the token is not valid" in wrong.err) == (4, True)
        assert "wrong" not in run("config", "show").out
        assert run("ls").out.split()[0] == "JOBID"

    @pytest.mark.parametrize("url", ["localhost:80", "ftp://x", "http://"])
    def test_a_url_that_is_none_is_refused(self, url: str) -> None:
        with (
            pytest.raises((SettingsError, UnavailableError)),
            Client(Settings(url=url, token=SecretStr("x"))) as client,
        ):
            client.jobs()
