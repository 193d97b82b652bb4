"""Measures how long a worker's device is at work while it drains a long job of patching and one of extraction."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import result
from contenders.extraction.engine import record as record_extraction
from contenders.models import load_model
from contenders.patching.experiment import record as record_patching
from contenders.protocol import Subject
from contenders.shapes import SHAPES
from options import parser, prompt, read_options
from utilization import Utilization

from ndif_batch import Client, Settings
from ndif_batch.engine.loaded import LoadedModel
from ndif_batch.engine.model import wrap
from ndif_batch.graph.nodes import Graph
from ndif_batch.models.info import FILE, ModelInfo
from ndif_batch.queue.records import JobState, ModelRecord
from ndif_batch.queue.schema import upgrade
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.trace import LanguageModel
from ndif_batch.worker import run

LIBRARIES = ("torch", "transformers", "zarr", "sqlalchemy")
JOBS = ("patching", "extraction")
FIRST_SECOND = 1.0
"""What nvidia-smi tells before is of the time before the job."""


@dataclass(frozen=True)
class Drained:
    """A job that a worker has drained in so many ``seconds``, its model loaded.

    ``device`` is the share of the worker's time in which a batch was at work, by the device's own clock; ``gpu`` what
    nvidia-smi told from the second second on, None without a GPU. ``idle`` is how long the device waited for the
    worker, in microseconds a task.
    """

    job: str
    tasks: int
    seconds: float
    device: float
    gpu: float | None
    idle: float


def main() -> int:
    """Runs what the command line asks for; ends with 1 if a task fails."""
    arguments = parser(__doc__, ())
    arguments.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    arguments.add_argument("--pairs", type=int, default=200, help="of prompts, patched at every layer and position")
    arguments.add_argument("--prompts", type=int, default=20_000, help="of which one layer is read")
    arguments.add_argument("--tokens", type=int, nargs=2, default=(8, 128), help="shortest and longest of these")
    given = arguments.parse_args()
    options = read_options(given)
    subject = options.subject
    spaces = {
        "patching": patching_space(subject, given.pairs),
        "extraction": extraction_space(subject, given.prompts, given.tokens),
    }
    model = wrap(load_model(subject))
    with deployment(subject, model, options.batch_tokens) as client:
        lm = LanguageModel(client.model_info(subject.shape))
        graphs = {"patching": record_patching(subject, lm).graph, "extraction": record_extraction(subject, lm)}
        drained = [drain(client, model, job, graphs[job], spaces[job]) for job in given.jobs]
    print(table(drained))
    work = {"pairs": given.pairs, "prompts": given.prompts, "shortest": given.tokens[0], "longest": given.tokens[1]}
    found = {"jobs": [asdict(one) for one in drained], "versions": {name: version(name) for name in LIBRARIES}}
    result.write("busy", subject, work, found, options.output)
    return 0


def patching_space(subject: Subject, pairs: int) -> Space:
    """Every layer and position of each pair of prompts."""
    source, tokens = random.Random(0), SHAPES[subject.shape].tokens
    clean, corrupted = ([tuple(prompt(source, subject.shape, tokens)) for _ in range(pairs)] for _ in range(2))
    axes = (
        Axis("pair", {"clean": clean, "corrupted": corrupted}),
        Axis("layer", {"layer": range(subject.layers)}),
        Axis("position", {"position": range(tokens)}),
    )
    return Space(axes, {"answer": 5, "distractor": 7})


def extraction_space(subject: Subject, prompts: int, tokens: Sequence[int]) -> Space:
    """The middle layer of many prompts."""
    source = random.Random(0)
    given = [tuple(prompt(source, subject.shape, source.randint(*tokens))) for _ in range(prompts)]
    return Space((Axis("prompt", {"prompt": given}),), {"layer": max(subject.layers // 2 - 1, 0)})


@contextmanager
def deployment(subject: Subject, model: LoadedModel, batch_tokens: int | None) -> Iterator[Client]:
    """A queue and an archive of their own; the model's entry has no weights, since they are in memory."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        settings = Settings(data_dir=root, model_cache=root / "models", max_batch_tokens=batch_tokens)
        directory = settings.model_cache / subject.shape
        directory.mkdir(parents=True)
        info = ModelInfo(subject.shape, "random", directory, directory, "0", "0" * 64, subject.dtype, model.sites)
        (directory / FILE).write_text(json.dumps(info.to_json()))
        upgrade(settings.database)
        with Client(settings) as client:
            plain = (info.name, info.source, str(directory), info.revision, info.dtype, info.digest)
            client.queue.add_model(ModelRecord(*plain, info.sites.to_json()))
            yield client


def drain(client: Client, model: LoadedModel, job: str, graph: Graph, space: Space) -> Drained:
    """Submits the job and lets a worker run until it is done. ``SystemExit`` if not all of it was."""
    (known,) = client.queue.models()
    submitted = client.submit(client.prepare(graph, space, known.name), reuse=False)
    with Utilization(cuda=model.device.type == "cuda") as utilization:
        began = time.perf_counter()
        done = run(client.settings, known.name, until_idle=True, load=lambda info, device: model)
        seconds = time.perf_counter() - began
    if submitted.refresh().state is not JobState.COMPLETED or done.tasks_failed:
        raise SystemExit(f"{job}: {submitted.record}")
    device = done.busy or 0.0
    idle = (1 - device) * seconds / space.size * 1e6
    gpu = utilization.mean(began + FIRST_SECOND, began + seconds)
    return Drained(job, space.size, seconds, device, gpu, idle)


def table(drained: Sequence[Drained]) -> str:
    """The rows for a terminal."""
    lines = [f"{'':12}{'tasks':>9}{'seconds':>9}{'device':>8}{'gpu':>8}{'idle µs a task':>16}"]
    for one in drained:
        gpu = "-" if one.gpu is None else f"{one.gpu:.1%}"
        lines.append(f"{one.job:12}{one.tasks:9}{one.seconds:9.1f}{one.device:8.1%}{gpu:>8}{one.idle:16.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
