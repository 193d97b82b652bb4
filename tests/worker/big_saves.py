"""A worker of a tiny model whose tasks save much, in a process of its own: it prints by how much it grows."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from ndif_batch import param
from ndif_batch.client import Client
from ndif_batch.config import Settings
from ndif_batch.queue import schema
from ndif_batch.worker.process import run
from tests import tiny

MIB = 2**20


def main(root: Path, tasks: int, mib: int) -> None:
    """Print the tasks that were saved, and the MiB by which the process grew meanwhile."""
    settings = Settings(data_dir=root, model_cache=root / "models", user="ada")
    schema.upgrade(settings.database)
    with Client(settings) as client:
        (root / "tiny").mkdir()
        client.add_model(str(tiny.write(root / "tiny")), tiny.NAME)
        lm = client.language_model(tiny.NAME)
        with lm.trace(param("prompt")) as t:
            row = lm.model.layers[1].output[0, -1] * param("scale")
            row.reshape(1, -1).expand(mib * MIB // (4 * 16), 16).save("large")
        t.submit(grid={"scale": [float(scale) for scale in range(tasks)]}, prompt="the cat sat on")
        torch.ones(8, 8) @ torch.ones(8, 8)
        before = peak()
        done = run(settings, tiny.NAME, until_idle=True, device="cpu")
        print(done.tasks_done, (peak() - before) // MIB)


def peak() -> int:
    """The most bytes that this process ever had in memory."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
