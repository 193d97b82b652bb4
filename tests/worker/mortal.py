"""A worker process of the toy model, to be killed: ``python mortal.py DATA_DIRECTORY LEASE_SECONDS [STEP]``.

It prints the number of its finished shards whenever that changes. Given a step it kills itself before that write.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ndif_batch.client import Client
from ndif_batch.worker.logs import configure_logs
from ndif_batch.worker.progress import Progress
from ndif_batch.worker.signals import on_signals
from tests import toy
from tests.archive.archive_child import die_at
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import IDLE, working


def tell(progress: Progress) -> None:
    print(progress.shards_done, flush=True)


def main(root: Path, lease_seconds: float, step: int | None) -> None:
    configure_logs()
    if step is not None:
        die_at(step)
    with (
        Client(toy.settings(root)) as client,
        working(
            client, ToyEngine(), max_tokens=60, on_progress=tell, lease_seconds=lease_seconds, every_seconds=0.05
        ) as here,
        on_signals(lambda number: here.heart.draining.ask(number.name)),
        here.heart,
    ):
        here.run(IDLE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
