"""Takes a job in: checks it, stores its graph once, and cuts it into shards."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from sqlalchemy import insert, select

from ndif_batch.errors import ConflictError, UsageError
from ndif_batch.queue import dependencies, jobs, models, quotas, results, tallies, users
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.records import EventKind, JobContent, JobRecord, JobSpec, JobState
from ndif_batch.queue.tables import graph, job, shard
from ndif_batch.queue.transitions import record

SAME = ("model", "graph_digest", "space", "seed")
"""What two submissions under one key must agree in."""


def submit(tx: Transaction, spec: JobSpec) -> JobRecord:
    """A new job, or the one that its user submitted under the same key.

    ``NotFoundError`` for an unknown model; ``ConflictError`` for a disabled one, or a key that stands for another
    experiment; ``NotAllowedError`` with the number that would be over a quota, or for a priority that is not its user's
    to give; ``UsageError`` unless the shards cover the tasks in order; for what it comes after see
    :func:`ndif_batch.queue.dependencies.required`.
    """
    _check_shards(spec)
    if not models.get(tx, spec.model).enabled:
        raise ConflictError(f"model {spec.model!r} is disabled", hint="ask an administrator, or choose another model")
    awaiting = dependencies.required(tx, spec)
    users.ensure(tx, spec.user)
    users.require_priority(tx, spec.priority, spec.user)
    tx.insert_new(graph, {"digest": spec.graph_digest, "body": spec.graph, "created_at": tx.now})
    job_id = tx.insert_new(job, _row(tx, spec, awaiting=awaiting))
    if job_id is None:
        return _known(tx, spec)
    dependencies.keep(tx, job_id, spec.after)
    quotas.require(tx, spec, job_id)
    rows = [
        {"job_id": job_id, "index": index, "first_task": first, "tasks": tasks}
        for index, (first, tasks) in enumerate(spec.shards)
    ]
    tx.connection.execute(insert(shard), rows)
    submitted = jobs.get(tx, job_id)
    sources = {"reuse": submitted.options["reuse"]} if "reuse" in submitted.options else {}
    after = {"after": list(spec.after)} if spec.after else {}
    detail = {"tasks": spec.tasks, "shards": len(rows), "held": spec.hold, **sources, **after}
    record(tx, EventKind.JOB_SUBMITTED, spec.user, detail, job_id=job_id)
    tallies.changed(tx, job_id)
    return submitted


def _row(tx: Transaction, spec: JobSpec, *, awaiting: bool) -> dict[str, Any]:
    content = {field.name: getattr(spec, field.name) for field in fields(JobContent) if field.name != "graph"}
    reused = results.reusable(tx, spec.user, spec.identity) if spec.reuse and spec.identity is not None else []
    if reused:
        content["options"] = {**spec.options, "reuse": reused}
    state = JobState.HELD if spec.hold or awaiting else JobState.PENDING
    shards = len(spec.shards)
    return {
        **content,
        "state": state,
        "awaiting": awaiting,
        "shards": shards,
        "shards_left": shards,
        "submitted_at": tx.now,
    }


def _known(tx: Transaction, spec: JobSpec) -> JobRecord:
    query = select(job.c.id).where(job.c.user == spec.user, job.c.key == spec.key)
    known = jobs.get(tx, tx.connection.execute(query).scalar_one())
    different = next((field for field in SAME if _plain(known, field) != _plain(spec, field)), None)
    if different is not None:
        raise ConflictError(
            f"key {spec.key!r} is taken by job {known.id}, whose {different} differs", hint="choose another key"
        )
    return known


def _plain(content: JobContent, field: str) -> str:
    return json.dumps(getattr(content, field), sort_keys=True)


def _check_shards(spec: JobSpec) -> None:
    expected = 0
    for first, tasks in spec.shards:
        if first != expected or tasks < 1:
            raise UsageError(f"a shard of {tasks} tasks starts at task {first}, not at {expected}")
        expected += tasks
    if expected != spec.tasks or not expected:
        raise UsageError(f"the shards hold {expected} tasks, the job has {spec.tasks}")
