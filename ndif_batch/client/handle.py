"""A submitted job as its user holds it: how far it is, what failed, what it saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import TYPE_CHECKING

from ndif_batch.client.completed import POLL_SECONDS, Completed, TaskResult
from ndif_batch.errors import NotFoundError, TimedOutError
from ndif_batch.queue.api import pages
from ndif_batch.queue.records import EventRecord, JobRecord, JobState, TaskFailure
from ndif_batch.sweep.space import Space

if TYPE_CHECKING:
    from ndif_batch.archive import Results, Verified
    from ndif_batch.client.saved import SavedRef
    from ndif_batch.queue.api import ClientQueue

WATCH_SECONDS = 1.0


class JobHandle:
    """One job. ``record`` is what was known of it at the last look; :meth:`refresh` looks again.

    Whoever waits for it looks again and again, and each time calls ``check``, which raises if there is no use in it.
    """

    def __init__(
        self,
        queue: ClientQueue,
        record: JobRecord,
        actor: str,
        check: Callable[[JobRecord], None] = lambda record: None,
    ) -> None:
        self.record = record
        self._queue = queue
        self._actor = actor
        self._check = check

    @property
    def id(self) -> int:
        """The job's number."""
        return self.record.id

    @property
    def state(self) -> JobState:
        """The state at the last look."""
        return self.record.state

    def refresh(self) -> JobHandle:
        """Look at the job again."""
        self.record = self._queue.job(self.id)
        return self

    def wait(
        self,
        timeout: float | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
        on_look: Callable[[JobRecord], None] = lambda record: None,
        pause: Callable[[float], None] = sleep,
        clock: Callable[[], float] = monotonic,
    ) -> JobHandle:
        """Return when the job has ended, whichever way; ``TimedOutError`` after ``timeout`` seconds.

        ``on_look`` is called with the record every ``poll_seconds``, when the database is asked.
        """
        for record in self._looks(timeout, poll_seconds, pause, clock):
            on_look(record)
        return self

    def as_completed(
        self,
        timeout: float | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
        pause: Callable[[float], None] = sleep,
        clock: Callable[[], float] = monotonic,
    ) -> Iterator[TaskResult]:
        """Each task with what it saved, once, as its shard is done; ends with the job. Errors as of :meth:`wait`."""
        tasks = Completed(self.record)
        for record in self._looks(timeout, poll_seconds, pause, clock):
            yield from tasks.new(record, self.results)

    def watch(self, timeout: float | None = None, *, save: str | None = None) -> None:
        """:meth:`wait`, and show how far the job is: in a notebook with a picture of ``save``, else on stderr.

        ``save`` is a single number of each task: the first that is one, unless given.
        """
        from ndif_batch.client.notebook import Live

        live = Live(self, save)
        self.wait(timeout, poll_seconds=WATCH_SECONDS, on_look=live.look)

    def _looks(
        self, timeout: float | None, poll_seconds: float, pause: Callable[[float], None], clock: Callable[[], float]
    ) -> Iterator[JobRecord]:
        """The record again and again, last when the job has ended."""
        deadline = None if timeout is None else clock() + timeout
        while True:
            yield self.refresh().record
            if self.state.final:
                return
            self._check(self.record)
            if deadline is not None and clock() >= deadline:
                raise TimedOutError(f"job {self.id} is still {self.state} after {timeout:g} s", hint=self._waits_for())
            pause(poll_seconds)

    def results(self) -> Results:
        """What was saved so far, lazily; ``NotFoundError`` before the first of its tasks was taken by a worker."""
        found = None if self.record.removed_at is not None else self._queue.open_results(self.record)
        if found is None:
            record = self.refresh().record
            if record.removed_at is not None:
                raise NotFoundError(f"the results of job {self.id} were removed on {record.removed_at:%Y-%m-%d}")
            raise NotFoundError(f"job {self.id} has no results yet: it is {record.state}", hint=self._waits_for())
        return found

    def saved(self, name: str) -> SavedRef:
        """The array ``name`` of its results as the value of a tensor parameter of another job, also before it is there.

        ``t.submit(vector=job.saved("mean"))`` begins when this job is completed. ``NotFoundError`` if it saves nothing
        of that name.
        """
        from ndif_batch.client.saved import of_job

        return of_job(self.record, name)

    def remove_results(self) -> bool:
        """Delete what the job saved; False if the files are another account's: the scheduler then deletes them.

        ``ConflictError`` unless it has ended, ``NotAllowedError`` if it is another user's.
        """
        deleted = self._queue.remove_results(self.id, self._actor)
        self.refresh()
        return deleted

    def failures(self, limit: int = 100) -> list[TaskFailure]:
        """The tasks that failed and why, the first ``limit`` by task; of a failed shard, those that were to run."""
        skipped = Space.from_json(self.record.space).excluded()
        found: list[TaskFailure] = []
        for wanted in pages(limit):
            found += (page := self._queue.failures(self.id, wanted, found[-1].task if found else -1))
            if len(page) < wanted:
                break
        return found if skipped is None else [failure for failure in found if not skipped[failure.task]]

    def events(self, limit: int = 100) -> list[EventRecord]:
        """What happened to the job, the newest ``limit``, oldest first."""
        found: list[EventRecord] = []
        for wanted in pages(limit):
            found = (page := self._queue.events(self.id, wanted, found[0].id if found else None)) + found
            if len(page) < wanted:
                break
        return found

    def verified(self) -> Verified:
        """What came of running some tasks again alone: the largest deviation of each save, and who deviates."""
        return self._queue.verified(self.id)

    def cancel(self) -> JobHandle:
        """End the job; what was saved stays readable. ``ConflictError`` if it has ended already."""
        self._queue.cancel(self.id, self._actor)
        return self.refresh()

    def hold(self) -> JobHandle:
        """Let no worker take more of the job until :meth:`release`."""
        self._queue.hold(self.id, self._actor)
        return self.refresh()

    def release(self) -> JobHandle:
        """Undo :meth:`hold`."""
        self._queue.release(self.id, self._actor)
        return self.refresh()

    def retry(self) -> JobHandle:
        """Run again what failed."""
        self._queue.retry(self.id, self._actor)
        return self.refresh()

    def set_priority(self, priority: int) -> JobHandle:
        """Let the job go before those of lower priority; one above 0 is an administrator's to give."""
        self._queue.set_priority(self.id, priority, self._actor)
        return self.refresh()

    def __repr__(self) -> str:
        record = self.record
        failed = f", {record.tasks_failed} failed" if record.tasks_failed else ""
        return f"<job {self.id} {record.name!r} {self.state} {record.tasks_done}/{record.tasks} tasks{failed}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: how far the job was at the last look, and what it has saved by now."""
        from ndif_batch.client.notebook import page

        return page(self, None)

    def _waits_for(self) -> str | None:
        if self.record.awaiting:
            return f"it comes after job {' and '.join(map(str, self.record.after))}"
        if self.state in (JobState.PENDING, JobState.RUNNING):
            return f"a worker runs it: `ndif-batch worker run --model {self.record.model}`"
        return f"let it go: `ndif-batch release {self.id}`" if self.state is JobState.HELD else None
