"""The queue as one caller may see and change it: users their own, readers all to look at, administrators all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ndif_batch import blobs
from ndif_batch.archive import Results
from ndif_batch.archive.verified import Verified
from ndif_batch.client import Client
from ndif_batch.client.handle import JobHandle
from ndif_batch.client.local import LocalQueue
from ndif_batch.client.plan import Plan
from ndif_batch.client.saved import SavedRef, of_job, with_saved
from ndif_batch.config import Settings
from ndif_batch.errors import NotAllowedError, NotFoundError, UsageError
from ndif_batch.graph.serialize import graph_from_json
from ndif_batch.launcher import Launcher, open_launcher
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.source import check_name
from ndif_batch.models.tokenizer import FILE as TOKENIZER
from ndif_batch.queue.access import SESSION_LASTS, Caller, NewToken, Scope, TokenRecord
from ndif_batch.queue.api import Damage, ModelEntry, ReusedTasks, Submission
from ndif_batch.queue.cluster import ModelBacklog, PilotRecord, Quotas, Role, UsageRecord, UserRecord
from ndif_batch.queue.figures import ArchiveFigures, EventFilter, JobFigures, JobFilter
from ndif_batch.queue.records import (
    EventRecord,
    JobRecord,
    JobState,
    ModelRecord,
    ShardRecord,
    TaskFailure,
    WorkerRecord,
)
from ndif_batch.scheduler import orders
from ndif_batch.scheduling.policy import HIGHEST_OF_USERS
from ndif_batch.server.apart import ADD_MODEL, RECOMPUTE, Apart
from ndif_batch.server.spaces import space_from
from ndif_batch.sweep.sample import VERIFY_FRACTION

OTHERS = "(others)"
"""Whose tokens a user's view of the backlog tells together."""


@dataclass(frozen=True, slots=True)
class CallerQueue:
    """An :class:`~ndif_batch.queue.api.Api` for ``caller``, whose token has the scope of each route already.

    What a caller may not see is not there: ``NotFoundError``. What they see and may not change: ``NotAllowedError``.
    """

    caller: Caller
    queue: LocalQueue
    server_settings: Settings
    apart: Apart

    def because(self, why: str | None) -> CallerQueue:
        """The same, whose changes tell their reason."""
        return replace(self, queue=self.queue.because(why))

    def me(self) -> Caller:
        """Who asks."""
        return self.caller

    def models(self) -> list[ModelRecord]:
        """All models."""
        return self.queue.models()

    def model(self, name: str) -> ModelRecord:
        """One model."""
        return self.queue.model(name)

    def tokens_per_second(self, name: str) -> float | None:
        """How fast workers of a model were."""
        return self.queue.tokens_per_second(name)

    def model_entry(self, name: str) -> ModelEntry:
        """What is known of a model, and its tokenizer."""
        info = ModelInfo.read(Path(self.queue.model(name).path))
        return ModelEntry(info.to_json(), _text(info.directory / TOKENIZER), _text(info.weights / "config.json"))

    def add_model(self, source: str, name: str, dtype: str = "float32", revision: str | None = None) -> ModelRecord:
        """A new model, brought here by a process of its own: it takes memory and time."""
        check_name(name)
        whose = self._settings_of_caller()
        self.apart.call(ADD_MODEL, whose, source=source, name=name, dtype=dtype, revision=revision)
        return self.queue.model(name)

    def remove_model(self, name: str, *, actor: str) -> ModelRecord:
        """No more jobs of a model."""
        return self.queue.remove_model(name, actor=actor)

    def load_model(self, name: str, *, actor: str) -> None:
        """A pilot of a model."""
        self.queue.load_model(name, actor=actor)

    def pin_model(self, name: str, pilots: int, *, actor: str) -> None:
        """Pilots of a model that stay."""
        self.queue.pin_model(name, pilots, actor=actor)

    def evict_model(self, name: str) -> list[str]:
        """No pilots of a model."""
        actor = self.caller.user
        return orders.evict(self.queue, self._launcher(), name, actor=actor, reason=self._reason("evicted"))

    def jobs(
        self, user: str | None = None, state: JobState | None = None, limit: int = 100, before: int | None = None
    ) -> list[JobRecord]:
        """Their own jobs, or those of all for who sees all."""
        return self.queue.jobs(self._whose(user), state, limit, before)

    def job(self, job_id: int) -> JobRecord:
        """A job that they may see."""
        found = self.queue.job(job_id)
        if not self._sees(found.user):
            raise NotFoundError(f"there is no job {job_id}")
        return found

    def submit(self, submission: Submission) -> JobRecord:
        """A job of theirs; a priority above that of others is for administrators."""
        self._require_priority(submission.priority)
        with_fraction = VERIFY_FRACTION if submission.verify_fraction is None else submission.verify_fraction
        client, plan = self._planned(submission)
        return client.submit(
            plan,
            name=submission.name,
            seed=submission.seed,
            hold=submission.hold,
            key=submission.key,
            priority=submission.priority,
            max_retries=submission.max_retries,
            nan=submission.nan,
            layout=submission.layout,
            verify_fraction=with_fraction,
            reuse=submission.reuse,
            resources=submission.resources,
            retention_days=submission.retention_days,
            after=submission.after,
        ).record

    def reusable(self, submission: Submission) -> ReusedTasks:
        """What of an experiment their earlier jobs have saved."""
        client, plan = self._planned(submission)
        found = client.reusable(plan, seed=submission.seed, nan=submission.nan, layout=submission.layout)
        return ReusedTasks(found.tasks, found.jobs)

    def earlier(self, submission: Submission) -> JobRecord | None:
        """Their newest job of the same experiment."""
        client, plan = self._planned(submission)
        found = client.earlier(plan, seed=submission.seed)
        return None if found is None else found.record

    def cancel(self, job_id: int, actor: str) -> JobRecord:
        """End a job of theirs."""
        return self.queue.cancel(self._own(job_id).id, actor)

    def hold(self, job_id: int, actor: str) -> JobRecord:
        """Hold a job of theirs."""
        return self.queue.hold(self._own(job_id).id, actor)

    def release(self, job_id: int, actor: str) -> JobRecord:
        """End the hold of a job of theirs."""
        return self.queue.release(self._own(job_id).id, actor)

    def retry(self, job_id: int, actor: str) -> JobRecord:
        """Run again what failed of a job of theirs."""
        return self.queue.retry(self._own(job_id).id, actor)

    def set_priority(self, job_id: int, priority: int, actor: str) -> JobRecord:
        """The priority of a job of theirs; one above that of others is for administrators to give."""
        self._require_priority(priority)
        return self.queue.set_priority(self._own(job_id).id, priority, actor)

    def shards(self, job_id: int) -> list[ShardRecord]:
        """The shards of a job that they may see."""
        return self.queue.shards(self.job(job_id).id)

    def failures(self, job_id: int, limit: int = 100, after: int = -1) -> list[TaskFailure]:
        """The failures of a job that they may see."""
        return self.queue.failures(self.job(job_id).id, limit, after)

    def verified(self, job_id: int) -> Verified:
        """The comparison of a job that they may see."""
        return self.queue.verified(self.job(job_id).id)

    def events(self, job_id: int | None = None, limit: int = 100, before: int | None = None) -> list[EventRecord]:
        """What happened to a job that they may see; to all for who sees all."""
        if job_id is None:
            self._require_all()
        else:
            self.job(job_id)
        return self.queue.events(job_id, limit, before)

    def with_results(self, job_ids: Sequence[int] = ()) -> list[int]:
        """Those of the jobs that they may see and that have results."""
        return [found for job_id in job_ids for found in self.queue.with_results([self.job(job_id).id])]

    def remove_results(self, job_id: int, actor: str) -> bool:
        """Delete what a job of theirs saved."""
        return self.queue.remove_results(self._own(job_id).id, actor)

    def open_results(self, record: JobRecord) -> Results | None:
        """What a job that they may see has saved."""
        return self.queue.open_results(self.job(record.id))

    def damage(self, job_id: int) -> list[Damage]:
        """What is damaged of a job that they may see."""
        problems = JobHandle(self.queue, self.job(job_id), self.caller.user).results().verify()
        return [Damage(one.path, one.what, one.tasks.start, len(one.tasks)) for one in problems]

    def recompute(self, job_id: int, count: int, seed: int = 0) -> Verified:
        """What comes of running tasks of a job of theirs again, by a process of its own."""
        JobHandle(self.queue, self._own(job_id), self.caller.user).results()  # there are some
        found = self.apart.call(RECOMPUTE, self._settings_of_caller(), job_id=job_id, count=count, seed=seed)
        return Verified.from_json(found)

    def workers(self, ids: Sequence[int] | None = None) -> list[WorkerRecord]:
        """All workers, or some: whether one has a model is why jobs wait."""
        return self.queue.workers(ids)

    def pilots(self, *, active: bool = True) -> list[PilotRecord]:
        """All pilots, likewise."""
        return self.queue.pilots(active=active)

    def newest_pilots(self, models: Sequence[str] = (), ended: int = 1) -> list[PilotRecord]:
        """Those that have not ended, and some that have, likewise."""
        return self.queue.newest_pilots(models, ended)

    def backlog(self) -> dict[str, ModelBacklog]:
        """What waits for each model; whose it is, is told of their own only."""
        found = self.queue.backlog()
        return found if self.caller.sees_all else {model: self._hidden(one) for model, one in found.items()}

    def drain_pilot(self, name: str) -> None:
        """Let a pilot end in good order."""
        self._order(name, orders.drain, "draining")

    def kill_pilot(self, name: str) -> None:
        """End a pilot at once."""
        self._order(name, orders.kill, "killed")

    def users(self) -> list[UserRecord]:
        """Themselves, or all for who sees all."""
        return [user for user in self.queue.users() if self._sees(user.name)]

    def user(self, name: str) -> UserRecord:
        """Themselves, or anybody for who sees all."""
        if not self._sees(name):
            raise NotFoundError(f"there is no user {name!r}")
        return self.queue.user(name)

    def create_user(self, name: str, role: Role, *, actor: str) -> UserRecord:
        """A new user."""
        return self.queue.create_user(name, role, actor=actor)

    def set_role(self, name: str, role: Role, *, actor: str) -> UserRecord:
        """The role of a user."""
        return self.queue.set_role(name, role, actor=actor)

    def set_shares(self, name: str, shares: float, *, actor: str) -> UserRecord:
        """The shares of a user."""
        return self.queue.set_shares(name, shares, actor=actor)

    def set_quotas(self, name: str, quotas: Quotas, *, actor: str) -> UserRecord:
        """The quotas of a user."""
        return self.queue.set_quotas(name, quotas, actor=actor)

    def usage_of(self, name: str | None = None, since: datetime | None = None) -> list[UsageRecord]:
        """What they have used, or everybody for who sees all."""
        return self.queue.usage_of(self._whose(name), since)

    def running_shards(self) -> dict[str, int]:
        """What they run, or everybody for who sees all."""
        return {name: count for name, count in self.queue.running_shards().items() if self._sees(name)}

    def tokens(self, user: str | None = None) -> list[TokenRecord]:
        """Their own tokens, or those of all for administrators."""
        return self.queue.tokens(user if self.caller.may(Scope.ADMIN) else self._own_name(user))

    def create_token(
        self,
        user: str,
        name: str = "",
        scopes: Sequence[Scope] | None = None,
        expires_days: float | None = None,
        *,
        actor: str,
    ) -> NewToken:
        """A token for a user."""
        return self.queue.create_token(user, name, scopes, expires_days, actor=actor)

    def create_login(self, *, actor: str) -> NewToken:
        """A code for a login, by a token that the session cannot outlive."""
        expires_at = self.caller.expires_at
        if expires_at is not None and expires_at < self.queue.now() + SESSION_LASTS:
            hours = SESSION_LASTS // timedelta(hours=1)
            raise NotAllowedError(
                "this token expires before a session would end", hint=f"a session lasts {hours} hours"
            )
        return self.queue.create_login(self.caller.scopes, actor=actor)

    def revoke_token(self, token_id: int, *, actor: str) -> TokenRecord:
        """One of their tokens, or any for administrators."""
        if not self.caller.may(Scope.ADMIN) and self.queue.token(token_id).user != self.caller.user:
            raise NotFoundError(f"there is no token {token_id}")
        return self.queue.revoke_token(token_id, actor=actor)

    def settings(self) -> dict[str, Any]:
        """All settings: a pause is why jobs wait."""
        return self.queue.settings()

    def set_settings(self, changes: Mapping[str, Any], *, actor: str) -> None:
        """Change settings."""
        self.queue.set_settings(changes, actor=actor)

    def pause(self, model: str | None = None, *, actor: str) -> None:
        """Pause a model or everything."""
        self.queue.pause(model, actor=actor)

    def resume(self, model: str | None = None, *, actor: str) -> None:
        """End a pause."""
        self.queue.resume(model, actor=actor)

    def store_constant(self, digest: str, data: bytes) -> None:
        """Store a constant tensor; ``UsageError`` for bytes that are not what the digest names."""
        if blobs.digest(data) != digest:
            raise UsageError(f"these bytes are not the tensor {digest[:12]}")
        try:
            tensor = blobs.decode(data)
        except Exception as error:  # noqa: BLE001 -- safetensors raises classes of its own for what is none of its files
            raise UsageError(f"these bytes are no tensor: {error}") from None
        blobs.store(self.server_settings.blobs, {digest: tensor})

    def archive(self, job_id: int) -> Path:
        """Where the results lie of a job that they may see; ``NotFoundError`` if they were removed."""
        record = self.job(job_id)
        if record.removed_at is not None:
            raise NotFoundError(f"the results of job {job_id} were removed on {record.removed_at:%Y-%m-%d}")
        return record.store

    def find_jobs(self, wanted: JobFilter, limit: int, before: int | None) -> list[JobRecord]:
        """Their own jobs, or those of all for who sees all, as a filter wants them."""
        return self.queue.find_jobs(replace(wanted, user=self._whose(wanted.user)), limit, before)

    def job_figures(self, user: str | None = None) -> list[JobFigures]:
        """How many jobs they have, or all for who sees all, by model and state."""
        return self.queue.job_figures(self._whose(user))

    def archive_figures(self) -> list[ArchiveFigures]:
        """What their results take up, or those of each for who sees all."""
        return self.queue.archive_figures(self._whose(None))

    def largest_archives(self, limit: int) -> list[JobRecord]:
        """Which of the jobs that they may see have the largest results."""
        return self.queue.largest_archives(self._whose(None), limit)

    def live_workers(self) -> list[WorkerRecord]:
        """The workers of now and of the last hour."""
        return self.queue.live_workers()

    def find_events(self, wanted: EventFilter, limit: int, before: int | None) -> list[EventRecord]:
        """What happened, for who sees all."""
        self._require_all()
        return self.queue.find_events(wanted, limit, before)

    def drain_worker(self, worker_id: int, actor: str) -> None:
        """Let a worker end in good order."""
        self.queue.drain_worker(worker_id, actor)

    def require_all(self) -> None:
        """``NotAllowedError`` for who does not see all."""
        self._require_all()

    def _planned(self, submission: Submission) -> tuple[Client, Plan]:
        """The experiment, checked as if its user had prepared it here."""
        space = with_saved(space_from(submission.space), self._saved(submission))
        client = Client(self._settings_of_caller(), self.queue)
        graph = graph_from_json(submission.graph)
        return client, client.prepare(graph, space, submission.model, reduce=submission.reduce)

    def _saved(self, submission: Submission) -> dict[str, SavedRef]:
        """The results of jobs of theirs that an experiment binds."""
        found = {}
        for digest, one in (submission.saved or {}).items():
            record = self.queue.job(one.job)
            if record.user != self.caller.user:
                raise NotFoundError(f"there is no job {one.job}")
            found[digest] = of_job(record, one.save)
            if found[digest].digest != digest:
                raise UsageError(f"{one.save!r} of job {record.id} is not the tensor {digest[:12]}")
        return found

    def _require_priority(self, priority: int) -> None:
        if priority > HIGHEST_OF_USERS:
            self.caller.require(Scope.ADMIN)

    def _order(self, name: str, order: Any, done: str) -> None:
        found = next((pilot for pilot in self.queue.pilots() if pilot.name == name), None)
        if found is None:
            raise NotFoundError(f"no pilot {name!r} is active")
        order(self.queue, self._launcher(), found, actor=self.caller.user, reason=self._reason(done))

    def _reason(self, done: str) -> str:
        return f"{done} by {self.caller.user}" + (f": {self.queue.why}" if self.queue.why else "")

    def _launcher(self) -> Launcher:
        cluster = self.server_settings.cluster
        return open_launcher(cluster.launcher, self.server_settings.pilots, cluster.gpus)

    def _settings_of_caller(self) -> Settings:
        return self.server_settings.model_copy(update={"user": self.caller.user})

    def _sees(self, user: str) -> bool:
        return self.caller.sees_all or user == self.caller.user

    def _own(self, job_id: int) -> JobRecord:
        """A job that they may change."""
        found = self.queue.job(job_id)
        if found.user != self.caller.user and not self.caller.may(Scope.ADMIN):
            if self._sees(found.user):
                raise NotAllowedError(f"job {job_id} belongs to {found.user!r}, not to {self.caller.user!r}")
            raise NotFoundError(f"there is no job {job_id}")
        return found

    def _whose(self, user: str | None) -> str | None:
        return user if self.caller.sees_all else self._own_name(user)

    def _own_name(self, user: str | None) -> str:
        if user not in (None, self.caller.user):
            raise NotAllowedError(f"{self.caller.user!r} may not look at what belongs to {user!r}")
        return self.caller.user

    def _require_all(self) -> None:
        if not self.caller.sees_all:
            raise NotAllowedError(f"{self.caller.user!r} may not look at what belongs to others")

    def _hidden(self, backlog: ModelBacklog) -> ModelBacklog:
        own = backlog.tokens.get(self.caller.user, 0)
        rest = sum(backlog.tokens.values()) - own
        shown = {self.caller.user: own, OTHERS: rest}
        return replace(backlog, tokens={name: tokens for name, tokens in shown.items() if tokens})


def _text(file: Path) -> str | None:
    return file.read_text() if file.is_file() else None
