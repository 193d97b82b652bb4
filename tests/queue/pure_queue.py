"""The queue as a few dictionaries: what the real one must agree with, call by call."""

from __future__ import annotations

from dataclasses import dataclass, field

FINAL = {"COMPLETED", "FAILED", "CANCELLED"}


@dataclass
class PureShard:
    tasks: int
    state: str = "PENDING"
    epoch: int = 0
    attempts: int = 0
    deaths: int = 0
    worker: int | None = None
    until: float = 0.0
    ready: float = 0.0
    failed: int = 0

    def free(self, *, ready: float = 0.0) -> None:
        self.state, self.worker, self.ready = "PENDING", None, ready


@dataclass
class PureJob:
    id: int
    priority: int
    tokens: int
    max_retries: int
    shards: list[PureShard]
    state: str = "PENDING"

    def settle(self) -> None:
        if all(shard.state in ("DONE", "FAILED") for shard in self.shards) and self.state not in FINAL:
            self.state = "FAILED" if any(shard.failed for shard in self.shards) else "COMPLETED"

    def begun(self) -> str:
        return "RUNNING" if any(shard.state in ("LEASED", "DONE") for shard in self.shards) else "PENDING"


@dataclass
class PureQueue:
    now: float = 0.0
    jobs: dict[int, PureJob] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)
    workers: dict[int, tuple[str, float]] = field(default_factory=dict)

    def lease(self, worker: int, max_tokens: int, seconds: float, max_shards: int) -> list[tuple[int, int]]:
        """(job id, shard index) of each shard leased."""
        self.heard(worker, seconds, starts=True)
        self.expire()
        held = [s for job in self.jobs.values() for s in job.shards if s.worker == worker]
        if self.workers[worker][0] != "RUNNING" or any(s.deaths >= 2 for s in held):
            return []
        chosen = self._choose(max_tokens, max_shards, bool(held))
        for job_id, index in chosen:
            job, shard = self.jobs[job_id], self.jobs[job_id].shards[index]
            shard.state, shard.worker, shard.until = "LEASED", worker, self.now + seconds
            shard.epoch += 1
            job.state = "RUNNING"
            self.started.add(job_id)
        return chosen

    def _choose(self, max_tokens: int, max_shards: int, busy: bool) -> list[tuple[int, int]]:
        waiting = [
            (job, index, shard)
            for job in sorted(self.jobs.values(), key=lambda job: (-job.priority, job.id))
            for index, shard in enumerate(job.shards)
            if job.state in ("PENDING", "RUNNING") and shard.state == "PENDING" and shard.ready <= self.now
        ][:max_shards]
        waiting.sort(key=lambda one: (-one[0].priority, one[0].id, one[2].deaths >= 2, one[1]))
        if waiting and waiting[0][2].deaths >= 2:
            return [] if busy else [(waiting[0][0].id, waiting[0][1])]
        chosen: list[tuple[int, int]] = []
        for job, index, shard in waiting:
            cost = max(1, shard.tasks * job.tokens)
            if shard.deaths < 2 and (not chosen or cost <= max_tokens):
                chosen.append((job.id, index))
                max_tokens -= cost
        return chosen

    def heard(self, worker: int, seconds: float, *, starts: bool = False) -> None:
        state = self.workers[worker][0]
        if state == "LOST" or (starts and state == "STARTING"):
            state = "RUNNING"
        self.workers[worker] = (state, self.now + seconds)

    def expire(self) -> None:
        for worker, (state, alive_until) in self.workers.items():
            if state in ("STARTING", "RUNNING", "DRAINING") and alive_until <= self.now:
                self.workers[worker] = ("LOST", alive_until)
        for job in self.jobs.values():
            for shard in job.shards:
                if shard.worker is not None and shard.until <= self.now:
                    self._take_back(shard, died=self.workers[shard.worker][0] == "LOST")
            job.settle()

    def _take_back(self, shard: PureShard, *, died: bool) -> None:
        shard.free()
        shard.deaths += died
        shard.attempts += died
        if died and shard.deaths > 2:
            shard.state, shard.failed = "FAILED", shard.tasks

    def heartbeat(self, worker: int, seconds: float, held: set[tuple[int, int]]) -> set[tuple[int, int]]:
        """What is lost of ``held``."""
        self.heard(worker, seconds)
        mine = {key for key in held if self.jobs[key[0]].shards[key[1]].worker == worker}
        for job_id, index in mine:
            self.jobs[job_id].shards[index].until = self.now + seconds
        return held - mine

    def end(self, job_id: int, index: int, epoch: int, outcome: str, failed: int = 0) -> bool:
        """``outcome`` is done, fail, defer (a retryable failure) or give_back."""
        job = self.jobs[job_id]
        shard = job.shards[index]
        if shard.state != "LEASED" or shard.epoch != epoch:
            return (shard.state, shard.epoch, outcome) == ("DONE", epoch, "done")
        shard.free()
        if outcome == "done":
            shard.state, shard.failed = "DONE", failed
        elif outcome != "give_back":
            shard.attempts += 1
            if outcome == "defer" and shard.attempts <= job.max_retries:
                shard.ready = self.now + min(5 * 2 ** (shard.attempts - 1), 300)
            else:
                shard.state, shard.failed = "FAILED", shard.tasks
        job.settle()
        return True

    def change(self, job_id: int, verb: str) -> bool:
        """Whether the job's state permits ``verb``."""
        job = self.jobs[job_id]
        bad = [shard for shard in job.shards if shard.failed]
        allowed = {
            "hold": job.state in ("PENDING", "RUNNING"),
            "release": job.state == "HELD",
            "cancel": job.state not in FINAL,
            "retry": job.state in ("RUNNING", "FAILED") and bool(bad),
        }
        if allowed[verb]:
            getattr(self, f"_{verb}")(job)
        return allowed[verb]

    def _hold(self, job: PureJob) -> None:
        job.state = "HELD"

    def _release(self, job: PureJob) -> None:
        job.state = "RUNNING" if job.id in self.started else "PENDING"

    def _cancel(self, job: PureJob) -> None:
        job.state = "CANCELLED"
        for shard in job.shards:
            if shard.state in ("PENDING", "LEASED"):
                shard.free()
                shard.state = "CANCELLED"

    def _retry(self, job: PureJob) -> None:
        for shard in job.shards:
            if shard.failed:
                shard.free()
                shard.failed = shard.attempts = shard.deaths = 0
        job.state = job.begun()
        if job.state == "PENDING":
            self.started.discard(job.id)

    def prioritize(self, job_id: int, priority: int) -> bool:
        """Whether the job still has a turn."""
        job = self.jobs[job_id]
        if job.state in FINAL:
            return False
        job.priority = priority
        return True

    def drain(self, worker: int) -> None:
        state, alive_until = self.workers[worker]
        if state in ("STARTING", "RUNNING"):
            self.workers[worker] = ("DRAINING", alive_until)

    def lose(self, worker: int, *, died: bool) -> None:
        state, alive_until = self.workers[worker]
        if state in ("STOPPED", "LOST"):
            return
        self.workers[worker] = ("LOST", alive_until)
        for job in self.jobs.values():
            for shard in job.shards:
                if shard.worker == worker:
                    self._take_back(shard, died=died)
            job.settle()

    def stop(self, worker: int) -> None:
        self.workers[worker] = ("STOPPED", self.workers[worker][1])
        for job in self.jobs.values():
            for shard in job.shards:
                if shard.worker == worker:
                    shard.free()
