"""The queue as its users and administrators ask it, here or through a server: each method with its request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import ConfigDict, Field

from ndif_batch.archive.verified import Verified
from ndif_batch.queue.access import Caller, NewToken, Scope, TokenRecord
from ndif_batch.queue.cluster import ModelBacklog, PilotRecord, Quotas, Role, UsageRecord, UserRecord
from ndif_batch.queue.records import (
    EventRecord,
    JobRecord,
    JobState,
    Json,
    ModelRecord,
    ShardRecord,
    TaskFailure,
    WorkerRecord,
)
from ndif_batch.queue.routes import delete, get, post, put

if TYPE_CHECKING:
    from ndif_batch.archive import Results

MOST = 1000
"""The longest listing that one request gives."""

Limit = Annotated[int, Field(ge=1, le=MOST)]
Id = Annotated[int, Field(ge=0, lt=2**63)]
Priority = Annotated[int, Field(ge=-(2**31), lt=2**31)]


def pages(limit: int) -> Iterator[int]:
    """The limits of the requests that together give at most ``limit`` of a listing."""
    for start in range(0, limit, MOST):
        yield min(MOST, limit - start)


@dataclass(frozen=True, slots=True)
class SavedValue:
    """A tensor that a job binds and another one saves."""

    job: Id
    save: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An experiment and how to run it, in the words of :meth:`ndif_batch.client.Client.submit`.

    The server does the rest: it checks the graph, turns text into tokens, and computes what is saved.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str
    graph: Json
    space: Json
    reduce: Json | None = None
    saved: Mapping[str, SavedValue] | None = None
    after: Annotated[Sequence[Id], Field(max_length=64)] = ()
    name: Annotated[str, Field(max_length=200)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    hold: bool = False
    key: Annotated[str, Field(max_length=200)] | None = None
    priority: Priority = 0
    max_retries: Annotated[int, Field(ge=0, le=100)] = 2
    nan: Literal["allow", "error"] = "allow"
    layout: Literal["auto", "solo"] = "auto"
    verify_fraction: float | None = None
    reuse: bool = True
    resources: Json | None = None
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None


@dataclass(frozen=True, slots=True)
class ReusedTasks:
    """How many tasks of a submission earlier jobs have saved, and which jobs, newest first."""

    tasks: int
    jobs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """The files of a model that are needed to trace, check and describe experiments: no weights."""

    info: Json
    tokenizer: str | None
    config: str | None


@dataclass(frozen=True, slots=True)
class Damage:
    """One file of an archive, what is wrong with it, and the tasks that it touches."""

    path: str
    what: str
    first_task: int
    tasks: int


class ClientQueue(Protocol):
    """What the command line and the Python client ask. ``actor`` is who does it; a server knows that by the token."""

    @get("/models")
    def models(self) -> list[ModelRecord]:
        """All models by name."""

    @get("/models/{name}")
    def model(self, name: str) -> ModelRecord:
        """One model; ``NotFoundError`` with the nearest name if there is none."""

    @get("/models/{name}/speed")
    def tokens_per_second(self, name: str) -> float | None:
        """Tokens that went through the model in a GPU-second of its recent workers; None if it was never measured."""

    @delete("/models/{name}", Scope.ADMIN)
    def remove_model(self, name: str, *, actor: str) -> ModelRecord:
        """Let no job name a model any more; ``ConflictError`` while one of it waits or runs. What was saved stays."""

    @post("/models/{name}/load", Scope.ADMIN)
    def load_model(self, name: str, *, actor: str) -> None:
        """Start a pilot of a model once, with and without work."""

    @put("/models/{name}/pin")
    def pin_model(self, name: str, pilots: Annotated[int, Field(ge=0, le=10_000)], *, actor: str) -> None:
        """Keep so many pilots of a model with and without work; 0 ends that."""

    @get("/jobs", following=lambda page: {"before": page[-1].id})
    def jobs(
        self, user: str | None = None, state: JobState | None = None, limit: Limit = 100, before: Id | None = None
    ) -> list[JobRecord]:
        """Jobs, newest first; ``before`` is the id to go on from."""

    @get("/jobs/{job_id}")
    def job(self, job_id: Id) -> JobRecord:
        """One job; ``NotFoundError`` if there is none."""

    @post("/jobs/{job_id}/cancel")
    def cancel(self, job_id: Id, actor: str) -> JobRecord:
        """End a job now; what it saved stays. ``ConflictError`` if it has ended."""

    @post("/jobs/{job_id}/hold")
    def hold(self, job_id: Id, actor: str) -> JobRecord:
        """Lease no more of a job; what is leased goes on. ``ConflictError`` unless it waits or runs."""

    @post("/jobs/{job_id}/release")
    def release(self, job_id: Id, actor: str) -> JobRecord:
        """End a hold; ``ConflictError`` if there is none."""

    @post("/jobs/{job_id}/retry")
    def retry(self, job_id: Id, actor: str) -> JobRecord:
        """Run again what failed; ``ConflictError`` if nothing did."""

    @put("/jobs/{job_id}/priority", Scope.WRITE)
    def set_priority(self, job_id: Id, priority: Priority, actor: str) -> JobRecord:
        """Lease a job before those of lower priority; one above 0 is for administrators to give.

        ``ConflictError`` if the job has ended.
        """

    @get("/jobs/{job_id}/shards")
    def shards(self, job_id: Id) -> list[ShardRecord]:
        """All shards of a job in order."""

    @get("/jobs/{job_id}/failures", following=lambda page: {"after": page[-1].task})
    def failures(
        self, job_id: Id, limit: Limit = 100, after: Annotated[int, Field(ge=-1, lt=2**31)] = -1
    ) -> list[TaskFailure]:
        """The first failed tasks of a job, and why; ``after`` is the task to go on from."""

    @get("/jobs/{job_id}/verified")
    def verified(self, job_id: Id) -> Verified:
        """What came of running some of a job's tasks again alone."""

    @get("/events", following=lambda page: {"before": page[0].id})
    def events(self, job_id: Id | None = None, limit: Limit = 100, before: Id | None = None) -> list[EventRecord]:
        """The newest events, of one job if given, oldest first; ``before`` is the id to go on from."""

    @get("/results")
    def with_results(self, job_ids: Annotated[Sequence[Id], Field(max_length=MOST)] = ()) -> list[int]:
        """Those of the jobs that have results to read."""

    @delete("/jobs/{job_id}/results")
    def remove_results(self, job_id: Id, actor: str) -> bool:
        """Delete what an ended job saved; False if the scheduler will do it."""

    def open_results(self, record: JobRecord) -> Results | None:
        """What a job saved so far; None if there is nothing yet."""

    @get("/workers")
    def workers(self, ids: Annotated[Sequence[Id], Field(max_length=MOST)] | None = None) -> list[WorkerRecord]:
        """All workers, or those of these ``ids``, newest first."""

    @post("/workers/{worker_id}/drain", Scope.ADMIN)
    def drain_worker(self, worker_id: Id, actor: str) -> None:
        """Let a worker finish what it holds and stop."""

    @get("/pilots")
    def pilots(self, *, active: bool = True) -> list[PilotRecord]:
        """The pilots that have not ended, oldest first; all there ever were unless ``active``."""

    @get("/pilots/newest")
    def newest_pilots(
        self, models: Annotated[Sequence[str], Field(max_length=MOST)] = (), ended: Limit = 1
    ) -> list[PilotRecord]:
        """Those that have not ended, and of each of ``models`` the newest ``ended`` that have; oldest first."""

    @get("/backlog")
    def backlog(self) -> dict[str, ModelBacklog]:
        """What waits for each model that something waits for."""

    @get("/users")
    def users(self) -> list[UserRecord]:
        """All users by name."""

    @get("/users/{name}")
    def user(self, name: str) -> UserRecord:
        """One user; ``NotFoundError`` if there is none."""

    @post("/users", Scope.ADMIN)
    def create_user(self, name: str, role: Role, *, actor: str) -> UserRecord:
        """A new user; ``ConflictError`` if there is one of that name."""

    @put("/users/{name}/role")
    def set_role(self, name: str, role: Role, *, actor: str) -> UserRecord:
        """What a user may do from now on."""

    @put("/users/{name}/shares")
    def set_shares(self, name: str, shares: float, *, actor: str) -> UserRecord:
        """How much of the cluster is the user's when all want it."""

    @put("/users/{name}/quotas")
    def set_quotas(self, name: str, quotas: Quotas, *, actor: str) -> UserRecord:
        """The most that the user may have at once."""

    @get("/usage")
    def usage_of(self, name: str | None = None, since: datetime | None = None) -> list[UsageRecord]:
        """What one user, or everybody, has used hour by hour, oldest first."""

    @get("/running-shards")
    def running_shards(self) -> dict[str, int]:
        """How many shards of each user are leased."""

    @get("/tokens")
    def tokens(self, user: str | None = None) -> list[TokenRecord]:
        """All tokens, of one user if given, oldest first."""

    @post("/tokens", Scope.ADMIN)
    def create_token(
        self,
        user: str,
        name: str = "",
        scopes: Sequence[Scope] | None = None,
        expires_days: float | None = None,
        *,
        actor: str,
    ) -> NewToken:
        """A token for a user, with all scopes of their role unless told; its text is given this once."""

    @post("/logins", Scope.READ)
    def create_login(self, *, actor: str) -> NewToken:
        """A code for one login of who asks at the dashboard, to do there what their token opens."""

    @delete("/tokens/{token_id}")
    def revoke_token(self, token_id: Id, *, actor: str) -> TokenRecord:
        """Let a token open nothing any more."""

    @get("/settings")
    def settings(self) -> dict[str, Any]:
        """All settings by name."""

    @put("/settings")
    def set_settings(self, changes: Mapping[str, Any], *, actor: str) -> None:
        """Set each name to its value, any JSON."""

    @post("/pause", Scope.ADMIN)
    def pause(self, model: str | None = None, *, actor: str) -> None:
        """Lease nothing more, of one model if given; what is leased goes on."""

    @post("/resume", Scope.ADMIN)
    def resume(self, model: str | None = None, *, actor: str) -> None:
        """End a pause."""


class Api(ClientQueue, Protocol):
    """All that a server answers: it also prepares submissions, and reaches what lies beside the queue."""

    @get("/me")
    def me(self) -> Caller:
        """Who asks, and what their token opens."""

    @post("/models", Scope.ADMIN, patient=True)
    def add_model(self, source: str, name: str, dtype: str = "float32", revision: str | None = None) -> ModelRecord:
        """Bring a model into the server's model cache and let jobs use it.

        ``source`` is a directory or a .gguf file of the server's host, or a hub id.
        """

    @post("/models/{name}/evict", Scope.ADMIN)
    def evict_model(self, name: str) -> list[str]:
        """Let every pilot of a model end in good order, and end its pin; the names of the pilots."""

    @get("/models/{name}/entry")
    def model_entry(self, name: str) -> ModelEntry:
        """What is known of a model, and its tokenizer."""

    @post("/jobs")
    def submit(self, submission: Submission) -> JobRecord:
        """Queue an experiment as a job of who asks; the same ``key`` gives the same job again."""

    @post("/reusable", Scope.READ)
    def reusable(self, submission: Submission) -> ReusedTasks:
        """What of an experiment earlier jobs of who asks have saved; nothing is queued."""

    @post("/earlier", Scope.READ)
    def earlier(self, submission: Submission) -> JobRecord | None:
        """The newest job of who asks of the same experiment, space and seed; nothing is queued."""

    @get("/jobs/{job_id}/damage")
    def damage(self, job_id: Id) -> list[Damage]:
        """The files of a job's archive that are not as they were written."""

    @post("/jobs/{job_id}/recompute", patient=True)
    def recompute(
        self, job_id: Id, count: Annotated[int, Field(ge=1, le=MOST)], seed: Annotated[int, Field(lt=2**63)] = 0
    ) -> Verified:
        """Run ``count`` saved tasks of a job again, each alone, and compare them with its archive."""

    @post("/pilots/{name}/drain", Scope.ADMIN)
    def drain_pilot(self, name: str) -> None:
        """Let a pilot end in good order."""

    @post("/pilots/{name}/kill", Scope.ADMIN)
    def kill_pilot(self, name: str) -> None:
        """End a pilot at once; what it held goes back to the queue."""
