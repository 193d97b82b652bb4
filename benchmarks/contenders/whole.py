"""This project the whole way: traced, submitted to a queue, run by a worker process, archived, read back."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from contenders.experiment import SAVED, constants, record
from contenders.protocol import Problem, Values, compete, read
from ndif_batch import Client, Settings
from ndif_batch.models.info import ModelInfo
from ndif_batch.queue.schema import upgrade

WORKER = "import sys; from ndif_batch import Settings; from ndif_batch.worker import run; \
run(Settings.model_validate_json(sys.argv[1]), sys.argv[2], device=sys.argv[3])"


def patch(problem: Problem, client: Client, model: str, layers: Sequence[int]) -> Values:
    trace = record(client.language_model(model))
    job = trace.submit(
        grid={"layer": layers, "position": problem.positions}, reuse=False, **constants(problem)
    )
    job.wait(poll_seconds=0.02)
    values: Values = job.results()[SAVED][...].tolist()
    return values


@contextmanager
def deployment(problem: Problem) -> Iterator[tuple[Client, str]]:
    """A queue, an archive and a worker of their own."""
    entry = ModelInfo.read(Path(problem.entry))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), model_cache=entry.directory.parent)
        upgrade(settings.database)
        with Client(settings) as client:
            client.add_model(entry.source, entry.name)
            command = [sys.executable, "-c", WORKER, settings.model_dump_json(), entry.name, problem.device]
            worker = subprocess.Popen(command)
            try:
                yield client, entry.name
            finally:
                worker.terminate()
                worker.wait()


if __name__ == "__main__":
    problem = read()
    with deployment(problem) as (client, model):
        compete(problem, partial(patch, problem, client, model), ["torch", "transformers", "zarr", "sqlalchemy"])
