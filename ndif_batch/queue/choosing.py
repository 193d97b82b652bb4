"""Which shards a worker gets next: the order of candidates, and the choice among them within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, or_, select

from ndif_batch.queue import states
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import ShardState
from ndif_batch.queue.rows import state_in
from ndif_batch.queue.tables import LEASABLE, job, shard


@dataclass(frozen=True, slots=True)
class Candidate:
    """A shard that waits, and the tokens that it would add to a pass."""

    shard_id: int
    tokens: int
    deaths: int = 0


def candidates(tx: Transaction, model: str, limit: int) -> list[Candidate]:
    """The first ``limit`` shards of ``model`` that wait: by priority, then by age. They stay locked."""
    rows = tx.connection.execute(candidate_query(model, tx.now, limit))
    return [Candidate(row.id, row.tasks * row.tokens_per_task, row.deaths) for row in rows]


def candidate_query(model: str, now: datetime, limit: int) -> Select[Any]:
    """The statement behind :func:`candidates`; walks ``ix_job_leasable`` and ``ix_shard_pending`` and sorts nothing."""
    return (
        select(shard.c.id, shard.c.tasks, shard.c.deaths, job.c.tokens_per_task)
        .join(job)
        .where(
            job.c.model == model,
            state_in(job.c.state, LEASABLE),
            state_in(shard.c.state, [ShardState.PENDING]),
            or_(shard.c.ready_at.is_(None), shard.c.ready_at <= now),
        )
        .order_by(job.c.priority.desc(), job.c.id, shard.c.index)
        .limit(limit)
        .with_for_update(of=shard, key_share=True, skip_locked=True)
    )


def choose(ordered: Sequence[Candidate], max_tokens: int, held: int) -> list[int]:
    """Shard ids to lease: the head of the order, then in order whatever still fits into ``max_tokens``.

    A head that is suspected of killing workers goes alone, to a worker that holds nothing (``held`` shards now);
    until then the worker gets nothing, so that it runs dry and the suspect has its turn.
    """
    if not ordered:
        return []
    head, *others = ordered
    if states.suspect(head.deaths):
        return [] if held else [head.shard_id]
    chosen, room = [head.shard_id], max_tokens - head.tokens
    for candidate in others:
        if candidate.tokens <= room and not states.suspect(candidate.deaths):
            chosen.append(candidate.shard_id)
            room -= candidate.tokens
    return chosen
