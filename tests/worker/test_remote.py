"""A worker that reaches the queue only through messages, some of which are lost, does everything once."""

from __future__ import annotations

from ndif_batch.client import Client
from ndif_batch.errors import UnavailableError
from ndif_batch.queue.records import JobState
from ndif_batch.queue.remote import RemoteQueue, serve
from ndif_batch.worker.patience import Patience
from ndif_batch.worker.progress import Progress
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import assert_right, submit, working


def test_a_worker_whose_every_second_answer_is_lost_does_everything_once(client: Client) -> None:
    jobs = [submit(client, seed=seed) for seed in range(3)]
    sent: list[bytes] = []
    again: list[float] = []

    def send(request: bytes) -> bytes:
        reply = serve(client.queue, request)
        sent.append(request)
        if here and len(sent) % 2:
            raise UnavailableError("the answer did not come")
        return reply

    here: list[object] = []
    patience = Patience(pause=again.append)
    with working(client, ToyEngine(), max_tokens=18, queue=RemoteQueue(send), patience=patience) as worker:
        here.append(worker)
        assert worker.run() == Progress(tasks_done=36, tasks_failed=0, shards_done=12)
        here.clear()
    assert len(again) > 6
    for job in jobs:
        assert job.refresh().state is JobState.COMPLETED
        assert_right(job)
        assert {(one.epoch, one.attempts) for one in client.queue.shards(job.id)} == {(1, 0)}
    assert client.queue.usage_of("ada")[0].cost.tokens == client.queue.workers()[0].tokens == 36 * 3
