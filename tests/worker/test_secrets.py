"""What a worker knows and users may not: none of it is where what they send runs, or in what they get."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from ndif_batch.client import Client
from ndif_batch.config import Settings
from ndif_batch.queue.records import JobState
from ndif_batch.sweep.task import Task
from ndif_batch.worker import process
from ndif_batch.worker.jobs import OpenJobs
from ndif_batch.worker.provenance import Runtime
from tests import toy
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit

TOKEN, PASSWORD = "nb_1_sesame0123456789", "open-sesame"
"""Secrets."""


def test_a_worker_has_no_secret_in_its_environment_while_it_runs_tasks_nor_in_what_it_saves(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(client)
    seen: list[dict[str, str]] = []

    def look(task: Task) -> None:
        seen.append(dict(os.environ))

    class Engine(ToyEngine):
        model: Any = SimpleNamespace(gpus=1, device=SimpleNamespace(type="cpu"))
        batch_tokens = 100
        interrupted: Any = None

    def ready(settings: Settings, *_: object) -> tuple[Engine, OpenJobs]:
        info = client.model_info(toy.NAME)
        jobs = OpenJobs(client.queue.model(toy.NAME), info.tokenizer, Runtime("here", "cpu", "packed"), settings.blobs)
        return Engine(before=look), jobs

    monkeypatch.setattr(process, "_ready", ready)
    monkeypatch.setattr(process, "Engine", lambda model, beside: Engine())
    monkeypatch.setenv("NDIF_BATCH_TOKEN", TOKEN)
    monkeypatch.setenv("NDIF_BATCH_DATABASE_URL", f"postgresql+psycopg://ada:{PASSWORD}@db/queue")
    process.run(client.settings, toy.NAME, until_idle=True)
    assert job.refresh().state is JobState.COMPLETED
    assert seen
    for secret in (TOKEN, PASSWORD):
        assert not [name for variables in seen for name, value in variables.items() if secret in value]
        assert secret in "".join(os.environ.values())
        files = [path for path in job.record.store.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_who_asks_a_server_is_not_told_the_password_of_the_database() -> None:
    settings = Settings(database_url=f"postgresql+psycopg://ada:{PASSWORD}@db/queue", token=SecretStr(TOKEN))
    assert PASSWORD in settings.environment()["NDIF_BATCH_DATABASE_URL"]
    through = settings.model_copy(update={"url": "http://127.0.0.1:8080"}).environment()
    assert not [value for value in through.values() if PASSWORD in value or TOKEN in value]
