"""What a lease reads of each user must be what their shards say."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import select

from ndif_batch.queue import tallies
from ndif_batch.queue.records import JobState, ShardState
from ndif_batch.queue.store import Queue
from ndif_batch.queue.tables import user, waiting


def check_tallies(queue: Queue) -> None:
    """Each user's row counts what they have leased, and names the first of their jobs that waits, or an earlier one."""
    shards: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    heads: dict[tuple[str, str], tuple[int, int]] = {}
    for job in sorted(queue.jobs(limit=10_000), key=lambda one: (-one.priority, one.id)):
        for shard in queue.shards(job.id):
            if shard.state is ShardState.LEASED:
                shards[job.user] += 1
                tokens[job.user] += shard.tasks * job.tokens_per_task
            if shard.state is ShardState.PENDING and job.state in (JobState.PENDING, JobState.RUNNING):
                heads.setdefault((job.model, job.user), (job.priority, job.id))
    with queue._database.read() as tx:
        for row in tx.connection.execute(select(user)):
            assert (row.leased_shards, row.leased_tokens) == (shards[row.name], tokens[row.name]), row.name
        told = {(row.model, row.user): row for row in tx.connection.execute(select(waiting)) if row.job_id is not None}
        assert {key: (row.priority, row.job_id) for key, row in told.items()} == heads
        for (model, name), row in told.items():
            head = tx.connection.execute(tallies.head_query(), {"model": model, "name": name, "now": tx.now}).one()
            assert row.since == head.since
            assert head.ready_at is None or row.ready_at is None or row.ready_at <= head.ready_at
