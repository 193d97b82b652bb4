"""What the live picture shows of two moments: speeds between them, and as many jobs as there is room for."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from ndif_batch.cli.top import FEWEST_JOBS, View, frame
from ndif_batch.client import Client
from ndif_batch.queue.cluster import Cost, DeviceReading
from ndif_batch.queue.protocol import Finished
from tests import toy
from tests.worker.working import submit


def lines(view: View, before: View | None = None, height: int = 50) -> list[str]:
    console = Console(width=140, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(frame(view, before, height))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_tokens_a_second_are_those_between_two_looks(client: Client) -> None:
    queue = client.queue
    submit(client)
    worker = queue.register_worker(toy.NAME, "n0", 1)
    (lease, *_) = queue.lease(worker, toy.NAME, 9, 60.0)
    queue.heartbeat(worker, 60.0, {lease.shard.id: 1}, DeviceReading("H100", 3 * 2**30, 80 * 2**30, 0.5))
    before = View.of(queue)
    assert "tokens/s" not in lines(before)[0]
    queue.commit([Finished(lease.shard.id, lease.shard.epoch, (), Cost(2.0, 500))])
    after = replace(View.of(queue), at=before.at + 10)
    shown = lines(after, before)
    assert shown[0] == "jobs: 1 running · 9 tasks wait · 1 workers, 50 tokens/s"
    row = shown[next(n for n, line in enumerate(shown) if line.startswith("WORKER")) + 1].split()
    assert row[:8] == ["1", "toy", "n0", "RUNNING", "50%", "3.0", "GiB", "2"]
    assert row[8] == "50"


def test_a_small_terminal_shows_the_newest_jobs_that_run_or_wait(client: Client) -> None:
    for seed in range(8):
        submit(client, seed=seed)
    client.job(8).cancel()
    shown = lines(View.of(client.queue), height=5)
    first = next(n for n, line in enumerate(shown) if line.startswith("JOBID")) + 1
    assert [int(line.split()[0]) for line in shown[first:]] == [7, 6, 5, 4, 3][:FEWEST_JOBS]
