"""This project the whole way: traced, submitted to a queue, run by a worker process, archived, read back."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from contenders.models import load_model
from contenders.patching.experiment import SAVED, constants, record
from contenders.patching.sweep import Sweep, patch_all, sweep
from contenders.protocol import Subject, read
from ndif_batch import Client, Settings
from ndif_batch.models import source
from ndif_batch.models.info import ModelInfo
from ndif_batch.queue.schema import upgrade

WORKER = "import sys; from ndif_batch import Settings; from ndif_batch.worker import run; \
run(Settings.model_validate_json(sys.argv[1]), sys.argv[2], device=sys.argv[3])"


def patch(subject: Subject, given: Sweep, client: Client, model: str, layers: Sequence[int]) -> Any:
    trace = record(subject, client.language_model(model))
    axes = {"layer": layers, "position": given.positions}
    job = trace.submit(grid=axes, reuse=False, **constants(given))
    job.wait(poll_seconds=0.02)
    return job.results()[SAVED][...].ravel()


@contextmanager
def deployment(subject: Subject) -> Iterator[tuple[Client, str]]:
    """A queue, an archive and a worker of their own."""
    with tempfile.TemporaryDirectory() as folder:
        entry = model_entry(subject, Path(folder) / "models")
        settings = Settings(data_dir=Path(folder), model_cache=entry.directory.parent)
        upgrade(settings.database)
        with Client(settings) as client:
            client.add_model(entry.source, entry.name, dtype=entry.dtype)
            command = [sys.executable, "-c", WORKER, settings.model_dump_json(), entry.name, subject.device]
            worker = subprocess.Popen(command)
            try:
                yield client, entry.name
            finally:
                worker.terminate()
                worker.wait()


def model_entry(subject: Subject, cache: Path) -> ModelInfo:
    """The entry that the model has, or one of its random weights."""
    if subject.entry is not None:
        return ModelInfo.read(Path(subject.entry))
    weights = cache / "weights"
    load_model(subject).save_pretrained(weights)
    return source.add(str(weights), subject.shape, cache, subject.dtype)


if __name__ == "__main__":
    problem = read()
    with deployment(problem.subject) as (client, model):
        run = partial(patch, problem.subject, sweep(problem), client, model)
        patch_all(problem, run, ["torch", "transformers", "zarr", "sqlalchemy"])
