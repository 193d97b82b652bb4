"""A whole installation under attack: database, disk, server, schedulers, pilots and workers, and jobs without end."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any, Literal, TypeVar

from ndif_batch.client import Client
from ndif_batch.config import ClusterSettings, Settings
from ndif_batch.errors import ConflictError
from ndif_batch.launcher.processes import pilot_processes
from ndif_batch.queue import schema
from ndif_batch.queue.cluster import Role
from ndif_batch.queue.records import JobState, ShardState
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.worker.patience import Patience
from tests import toy
from tests.chaos import disk, roles
from tests.chaos.points import POINTS, Doom
from tests.chaos.roles import Birth
from tests.devcluster import ROOT, DevCluster, devcluster
from tests.queue import postgres
from tests.waiting import until
from tests.worker.working import cut

LEASE_SECONDS = 2.0
WORKERS = 3
OPEN_JOBS = 3
ANSWERS, TILE = 5, (1, 1, 2)
LATEST = 40
"""The last call of a function at which a process may be doomed to die."""
SECONDS = 300.0
"""The longest wait; only what never comes takes it."""

NURSERY = get_context("forkserver")
NURSERY.set_forkserver_preload(["tests.chaos.nursery"])

Answer = TypeVar("Answer")


class BrokenError(AssertionError):
    """Something ended that nobody attacked."""


@dataclass(frozen=True)
class Kind:
    """What a world is made of: a database, workers that ask it or (``http``) a server, and how pilots start."""

    database: str
    http: bool = False
    launcher: Literal["local", "slurm"] = "local"
    pilots: int = 1

    def __str__(self) -> str:
        return "-".join((self.database, "http" if self.http else "direct", self.launcher))


@dataclass
class Being:
    """A process that is started again whenever it ends."""

    role: str
    process: ForkServerProcess
    birth: Birth
    killed: bool = False
    asked: bool = False

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    def ask(self) -> None:
        """SIGTERM: who has only just been born knows no better than to die of it."""
        self.asked = True
        self.process.terminate()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid


@dataclass
class World:
    """What is there, and what has befallen it. All chance is ``chance``."""

    kind: Kind
    folder: Path
    chance: Random
    client: Client
    server: postgres.Server | None
    slurm: DevCluster | None
    doomed: bool = True
    """Whether who is born may be doomed."""
    beings: list[Being] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    submitted: int = 0
    numbers: Iterator[int] = field(default_factory=count)
    later: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def clock(self) -> Path:
        return self.folder / "clock"

    @property
    def socket(self) -> Path:
        return self.folder / "served" / "socket"

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """An answer, through outages that end meanwhile."""

        def pause(seconds: float) -> None:
            self.do_what_is_due()
            sleep(seconds)

        return Patience(SECONDS, pause=pause).ask(question)

    def roles(self) -> list[str]:
        """Who is to be there."""
        asks = "remote worker" if self.kind.http else "worker"
        return [*[asks] * WORKERS, "scheduler", "scheduler", *(["server"] if self.kind.http else [])]

    def tend(self) -> None:
        """See who died and of what, and start others in their place; do what is due; let there be work."""
        self.do_what_is_due()
        for being in [one for one in self.beings if one.process.exitcode is not None]:
            self._mourn(being)
        missing = Counter(self.roles()) - Counter(one.role for one in self.beings)
        self.beings += [self._born(role) for role in missing.elements()]

    def do_what_is_due(self) -> None:
        now = monotonic()
        for due in [one for one in self.later if one[0] <= now]:
            self.later.remove(due)
            due[1]()

    def end(self) -> None:
        """Nothing is left that runs."""
        for being in self.beings:
            being.process.kill()
            being.process.join()
        while pilots := self.pilots():
            for pid in pilots:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            sleep(0.05)

    def _mourn(self, being: Being) -> None:
        self.beings.remove(being)
        code = being.process.exitcode
        if code == -signal.SIGKILL and not being.killed:
            if being.birth.doom is None:
                raise BrokenError(f"somebody killed a {being.role}")
            self.faults[f"{being.role}: death {being.birth.doom}"] += 1
        elif code == roles.GAVE_UP:
            self.told[f"a {being.role} gave up"] += 1
        elif code not in (0, -signal.SIGKILL) and not (being.asked and code == -signal.SIGTERM):
            told = being.birth.told
            words = told.read_text() if told.exists() else "it said nothing"
            raise BrokenError(f"a {being.role} ended with {code}: {words}")

    def _born(self, role: str) -> Being:
        log = self.folder / "logs" / f"{next(self.numbers)}-{role.replace(' ', '-')}"
        birth = Birth(
            self._environment(role), log, self.clock, log.with_suffix(".told"), self._doom(role), self._skew(role)
        )
        more: dict[str, tuple[Any, ...]] = {"server": (self.socket,), "scheduler": (self.kind.launcher,)}
        target = getattr(roles, role.removeprefix("remote "))
        process = NURSERY.Process(target=target, args=(birth, *more.get(role, ())), daemon=True)
        process.start()
        return Being(role, process, birth)

    def _doom(self, role: str) -> Doom | None:
        if not self.doomed or self.chance.random() < 0.5:
            return None
        latest = int(LATEST ** self.chance.random())
        return Doom(self.chance.choice(POINTS[role]), self.chance.random() < 0.5, latest)

    def _skew(self, role: str) -> float:
        """Processes of one host have one clock; those that ask a server, or a database with its own, need not."""
        if role not in ("worker", "remote worker") or self.kind.database == "sqlite" or not self.doomed:
            return 0.0
        if self.chance.random() < 0.7:
            return 0.0
        self.faults["worker: clock wrong"] += 1
        return self.chance.uniform(-1, 1) * 10 ** self.chance.uniform(0, 5)

    def _environment(self, role: str) -> dict[str, str]:
        environment = {**self.client.settings.environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        if self.slurm is not None:
            environment["SLURM_CONF"] = self.slurm.conf
        if self.kind.http and role != "server":
            own = {"URL": f"unix:{self.socket}", "TOKEN_FILE": str(self.folder / "token")}
            environment |= {f"NDIF_BATCH_{name}": value for name, value in own.items()}
        return environment

    def submit(self) -> None:
        """One more job, of answers that some earlier jobs had: every second may take their results."""
        number = self.submitted
        first = ANSWERS * number % toy.VOCABULARY
        values = {"layer": range(toy.LAYERS), "position": range(3), "answer": range(first, first + ANSWERS)}
        space = Space(tuple(Axis(name, {name: column}) for name, column in values.items()), {"prompt": "the cat sat"})
        plan = cut(self.client.prepare(toy.reading(), space, toy.NAME), TILE)
        self.ask(lambda: self.client.submit(plan, reuse=number % 2 == 1, key=f"job {number}"))
        self.submitted += 1

    def open_jobs(self) -> int:
        """How many jobs have not ended. One that failed, for its workers died, is tried again."""
        states = self.ask(self.client.queue.counts).jobs
        if states.get(JobState.FAILED):
            for job in self.ask(lambda: self.client.jobs(state=JobState.FAILED)):
                with suppress(ConflictError):
                    self.ask(job.retry)
                    self.told["a job was tried again"] += 1
        return sum(number for state, number in states.items() if state is not JobState.COMPLETED)

    def done(self) -> int:
        """How many tasks are."""
        tasks = self.ask(self.client.queue.counts).tasks
        return sum(number for (_, state), number in tasks.items() if state is ShardState.DONE)

    def pilots(self) -> list[int]:
        """The processes of pilots, their controllers among them."""
        folder = self.client.settings.pilots.resolve()
        return [one.pid for one in pilot_processes() if one.folder.parent == folder]

    def turn_clock(self, seconds: float) -> None:
        """From now on the clock of this host is so far off; nobody reads half a number."""
        new = self.clock.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.clock)

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Do it so much later."""
        self.later.append((monotonic() + seconds, what))

    def heal(self) -> None:
        """No more faults: what is under way is ended, and all work is done."""
        self.doomed = False
        for _, what in self.later:
            what()
        self.later.clear()
        for being in self.beings:
            if being.birth.doom is not None:
                being.kill()
        self._tend_until(lambda: not self.open_jobs(), "the end of all jobs")
        self._tend_until(lambda: not self.ask(self.client.queue.pilots), "the end of all pilots")
        self._tend_until(lambda: not self.pilots(), "the end of their processes")
        self._rest()

    def _tend_until(self, true: Callable[[], object], what: str) -> None:
        def tended() -> object:
            self.tend()
            return true()

        until(tended, what, SECONDS)

    def _rest(self) -> None:
        """Everybody ends in good order."""
        for role in ("worker", "scheduler", "server"):
            mine = [one for one in self.beings if one.role.endswith(role)]
            for being in mine:
                being.ask()
            for being in mine:
                being.process.join(SECONDS)
                self._mourn(being)


@contextmanager
def world(kind: Kind, folder: Path, chance: Random) -> Iterator[World]:
    """An installation that has nothing to do yet; of what it started nothing is left."""
    with ExitStack() as stack:
        if disk.can_mount():
            stack.enter_context(disk.small_disk(folder / "disk"))
        for name in ("disk", "logs", "served"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        (folder / "clock").write_text("0")
        server = stack.enter_context(postgres.started("fsync=off")) if kind.database == "postgresql" else None
        slurm = stack.enter_context(devcluster()) if kind.launcher == "slurm" else None
        client = stack.enter_context(Client(settings(kind, folder, server)))
        schema.upgrade(client.settings.database)
        toy.add(client)
        client.queue.set_role("walt", Role.WORKER, actor="test")
        (folder / "token").write_text(client.queue.create_token("walt", actor="test").text)
        (folder / "token").chmod(0o600)
        stack.enter_context(patched({"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}))
        made = World(kind, folder, chance, client, server, slurm)
        stack.callback(made.end)
        yield made


def settings(kind: Kind, folder: Path, server: postgres.Server | None) -> Settings:
    """Short leases, small passes, pilots that come and go quickly."""
    cluster = ClusterSettings(
        launcher=kind.launcher,
        tick_seconds=0.5,
        gpus=kind.pilots,
        worth=0.001,
        least_seconds=0.001,
        idle_seconds=0,
        residence_seconds=0,
        load_seconds=1,
        drain_seconds=20,
        folder=folder / "pilots",
        resources={"cpus_per_task": 1, "mem_gb": 1, "gpus_per_node": 1} if kind.launcher == "slurm" else {},
    )
    changes = {
        "cluster": cluster,
        "lease_seconds": LEASE_SECONDS,
        "heartbeat_seconds": LEASE_SECONDS / 8,
        "database_url": "" if server is None else server.url,
    }
    return toy.settings(folder / "disk").model_copy(update=changes)


@contextmanager
def patched(variables: dict[str, str]) -> Iterator[None]:
    """These variables, for those who are born of this process meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
