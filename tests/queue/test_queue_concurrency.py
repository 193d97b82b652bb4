"""Many processes at once: no shard twice, none lost when one is killed, none both cancelled and committed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Barrier

from ndif_batch.errors import ConflictError
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import JobState, ShardState
from ndif_batch.queue.store import Queue
from tests.queue.queue_samples import SECONDS, job_spec, kinds, new_worker, take

ROOT = Path(__file__).parents[2]

BEGIN = """
import sys
from tests.queue.queue_samples import new_worker, take
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.store import Queue

queue = Queue.open(sys.argv[1])
worker = new_worker(queue)
"""

DRAIN = """
print("ready", flush=True)
sys.stdin.readline()
while leases := take(queue, worker, 32):
    assert queue.commit([Finished(leases[0].shard.id, leases[0].shard.epoch)])
    print(*[lease.shard.index for lease in leases])
"""

TAKE_AND_HANG = """
(lease,) = take(queue, worker)
print(lease.shard.id, lease.shard.epoch, flush=True)
sys.stdin.readline()
"""


def start(code: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + code, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def at_once(*calls: Callable[[], object]) -> list[object]:
    """What each call returns, or the conflict it raises, when all begin together."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_eight_processes_lease_two_thousand_shards_and_none_twice(queue: Queue, url: str) -> None:
    job = queue.submit(job_spec(shards=2000, each=1))
    processes = [start(DRAIN, url) for _ in range(8)]
    assert [read_line(process) for process in processes] == ["ready"] * 8
    with ThreadPoolExecutor(8) as pool:
        outputs = [out for out, _ in pool.map(lambda process: process.communicate("go\n", timeout=120), processes)]
    assert [process.returncode for process in processes] == [0] * 8
    batches = [line.split() for out in outputs for line in out.splitlines()]
    leased = Counter(int(index) for batch in batches for index in batch)
    assert leased == Counter(range(2000))
    shards = queue.shards(job.id)
    assert {shard.epoch for shard in shards} == {1}
    assert sum(shard.state is ShardState.DONE for shard in shards) == len(batches) == queue.job(job.id).tasks_done


def test_a_worker_killed_between_lease_and_commit_loses_nothing(queue: Queue, url: str) -> None:
    job = queue.submit(job_spec(shards=1))
    process = start(TAKE_AND_HANG, url)
    shard_id, epoch = map(int, read_line(process).split())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Queue.open(url, lambda: datetime.now(UTC) + timedelta(seconds=SECONDS)) as later:
        (lease,) = take(later, new_worker(later))
        assert (lease.shard.id, lease.shard.epoch, lease.shard.deaths) == (shard_id, epoch + 1, 1)
        assert not later.commit([Finished(shard_id, epoch)])
        assert later.commit([Finished(lease.shard.id, lease.shard.epoch)])
    assert queue.job(job.id).state is JobState.COMPLETED


def test_a_submission_killed_half_way_leaves_no_half_job(queue: Queue, url: str) -> None:
    hang = """
from tests.queue.queue_samples import job_spec
from ndif_batch.queue import submission
with queue._database.write() as tx:
    submission.submit(tx, job_spec(shards=100))
    print("inside", flush=True)
    sys.stdin.readline()
"""
    process = start(hang, url)
    assert read_line(process) == "inside"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert queue.jobs() == []
    queue.submit(job_spec())


def test_cancel_and_the_last_commit_never_both_win(queue: Queue) -> None:
    worker = new_worker(queue)
    for _ in range(10):
        job_id = queue.submit(job_spec(shards=1)).id
        (lease,) = take(queue, worker)
        committed, cancelled = at_once(
            partial(queue.commit, [Finished(lease.shard.id, lease.shard.epoch)]), partial(queue.cancel, job_id, "ada")
        )
        assert bool(committed) is isinstance(cancelled, ConflictError)
        assert queue.job(job_id).state is (JobState.COMPLETED if committed else JobState.CANCELLED)


def test_a_cancelled_job_is_never_leased(queue: Queue) -> None:
    workers = [new_worker(queue) for _ in range(3)]
    for _ in range(5):
        job_id = queue.submit(job_spec(shards=20)).id
        at_once(*[partial(take, queue, worker, 5) for worker in workers], partial(queue.cancel, job_id, "ada"))
        assert {shard.state for shard in queue.shards(job_id)} == {ShardState.CANCELLED}
        assert take(queue, workers[0], 99) == []


def test_one_key_at_once_is_one_job(queue: Queue) -> None:
    submitted = at_once(*[partial(queue.submit, job_spec(key="monday"))] * 4)
    assert submitted == queue.jobs() * 4


def test_commits_at_once_end_the_job_exactly_once(queue: Queue) -> None:
    worker = new_worker(queue)
    for _ in range(5):
        job_id = queue.submit(job_spec(shards=4)).id
        leases = take(queue, worker, 4)
        commits = [partial(queue.commit, [Finished(lease.shard.id, lease.shard.epoch)]) for lease in leases]
        assert at_once(*commits) == [{lease.shard.id} for lease in leases]
        assert queue.job(job_id).state is JobState.COMPLETED
        assert kinds(queue, job_id).count("job.completed") == 1
