"""Who may do what from the command line: every verb against a server, with a token of everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import structlog
import typer

from ndif_batch.cli.main import app, main
from ndif_batch.client import Client
from ndif_batch.errors import TaskError
from ndif_batch.queue.cluster import Role
from ndif_batch.sweep.task import Task
from tests import toy
from tests.cli.conftest import JOB, SWEEP
from tests.server.serving import Served, serving
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working

COLUMNS = ("nobody", "other", "reader", "worker", "owner", "admin")
AS = {"nobody": None, "other": "bob", "reader": "rita", "worker": "walt", "owner": "ada", "admin": "root"}

DONE, WRONG, MISSING, REFUSED, AWAY = 0, 2, 3, 4, 6

READ = (REFUSED, DONE, DONE, REFUSED, DONE, DONE)
OWN = (REFUSED, MISSING, DONE, REFUSED, DONE, DONE)
SUBMIT = (REFUSED, DONE, REFUSED, REFUSED, DONE, DONE)
CHANGE = (REFUSED, MISSING, REFUSED, REFUSED, DONE, DONE)
ADMIN = (REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, DONE)
"""Exit codes by ``COLUMNS``."""

HERE: frozenset[str] = frozenset(
    {
        "config show",
        "db backup",
        "db check",
        "db upgrade",
        "demo",
        "doctor",
        "graph diff",
        "graph show",
        "graph validate",
        "init",
        "scheduler run",
        "serve",
    }
)
"""Verbs that ask no server: they are done where the settings, the files or the database are."""

GRID = "submit job.py --model toy -S prompt=the -S answer=Paris -S position=0 --grid layer=0:2"
TABLE: MappingProxyType[str, tuple[tuple[int, ...], str]] = MappingProxyType(
    {
        "submit": (SUBMIT, GRID),
        "sweep plan": (READ, "sweep plan sweep.yaml"),
        "sweep run": (SUBMIT, "sweep run sweep.yaml"),
        "sweep resume": ((REFUSED, MISSING, MISSING, REFUSED, MISSING, MISSING), "sweep resume sweep.yaml --seed 77"),
        "ls": (READ, "ls"),
        "show": (OWN, "show {done}"),
        "explain": (OWN, "explain {done}"),
        "logs": (OWN, "logs {done}"),
        "watch": (OWN, "watch {done}"),
        "wait": (OWN, "wait {done}"),
        "top": (READ, "top --once"),
        "dashboard": (READ, "dashboard"),
        "cancel": (CHANGE, "cancel {waiting}"),
        "hold": (CHANGE, "hold {waiting}"),
        "release": (CHANGE, "release {held}"),
        "retry": (CHANGE, "retry {failed}"),
        "priority": (CHANGE, "priority {waiting} low"),
        "results ls": (READ, "results ls"),
        "results show": (OWN, "results show {done} --save logit"),
        "results get": (OWN, "results get {done} logit"),
        "results export": (OWN, "results export {done} out.npz"),
        "results verify": (OWN, "results verify {done}"),
        "results rm": (CHANGE, "results rm {spare}"),
        "model ls": (READ, "model ls"),
        "model show": (READ, "model show toy"),
        "model add": ((*[REFUSED] * 5, WRONG), "model add /nowhere --name ../toy"),
        "model load": (ADMIN, "model load toy"),
        "model pin": (ADMIN, "model pin toy --pilots 0"),
        "model evict": (ADMIN, "model evict toy"),
        "model rm": ((*[REFUSED] * 5, WRONG), "model rm toy"),
        "worker run": ((*[REFUSED] * 3, MISSING, REFUSED, MISSING), "worker run --model none --once"),
        "cluster status": (READ, "cluster status"),
        "cluster pilots": (READ, "cluster pilots"),
        "cluster drain": (ADMIN, "cluster drain {pilot}"),
        "cluster kill": (ADMIN, "cluster kill {pilot}"),
        "cluster pause": (ADMIN, "cluster pause --model none"),
        "cluster resume": (ADMIN, "cluster resume --model none"),
        "user create": (ADMIN, "user create {name}"),
        "user ls": (READ, "user ls"),
        "user set": (ADMIN, "user set ada --shares 2"),
        "user revoke": ((REFUSED, MISSING, REFUSED, REFUSED, MISSING, DONE), "user revoke zoe"),
        "token create": (ADMIN, "token create zoe"),
        "token ls": (READ, "token ls"),
        "token revoke": (CHANGE, "token revoke {token}"),
    }
)


@dataclass(frozen=True)
class Scene:
    """A server, and Ada's jobs, made anew where a verb changes one."""

    served: Served
    behind: Client
    folder: Path
    number: Iterator[int]

    def exit_code(self, line: str, who: str) -> int:
        """What a command line of one of ``COLUMNS`` ends with."""
        token = None if AS[who] is None else self.served.tokens[str(AS[who])]
        environment = {
            "NDIF_BATCH_URL": self.served.url,
            "NDIF_BATCH_TOKEN": token or f"ndif_99_{'a' * 43}",
            "NDIF_BATCH_DATA_DIR": str(self.folder / who),
            "NDIF_BATCH_MODEL_CACHE": str(self.folder / who / "models"),
            "NDIF_BATCH_CONFIG": str(self.folder / "none.toml"),
        }
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            return main([part.format_map(_Made(self)) for part in line.split()])

    def made(self, what: str) -> object:
        """The number or name of what a command line asks for."""
        makers: dict[str, Callable[[], object]] = {
            "done": lambda: 1,
            "waiting": lambda: submit(self.behind, seed=next(self.number)).id,
            "held": lambda: submit(self.behind, seed=next(self.number), hold=True).id,
            "failed": lambda: self.ended(TaskError("boom")),
            "spare": self.ended,
            "pilot": self.pilot,
            "name": lambda: f"user{next(self.number)}",
            "token": lambda: self.behind.queue.create_token("ada", actor="test").record.id,
        }
        return makers[what]()

    def ended(self, error: TaskError | None = None) -> int:
        """A job that has run, and whose tasks failed with ``error``."""

        def before(task: Task) -> None:
            if error is not None:
                raise error

        job = submit(self.behind, seed=next(self.number))
        with working(self.behind, ToyEngine(before)) as worker:
            worker.run()
        return job.id

    def pilot(self) -> str:
        name = f"toy-{next(self.number)}"
        self.behind.queue.add_pilot(name, toy.NAME, "local", {}, actor="test")
        return name


class _Made(dict[str, Any]):
    """Makes what a command line names when it is asked for."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.scene = scene

    def __missing__(self, what: str) -> object:
        return self.scene.made(what)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("access")
    (folder / "job.py").write_text(JOB)
    (folder / "sweep.yaml").write_text(SWEEP)
    with toy.client(folder / "server") as behind, serving(behind.queue, behind.settings) as served:
        here = Scene(served, behind, folder, count(1))
        assert here.ended() == 1
        assert here.made("held")  # and stays: no model goes away while one of its jobs is not done
        behind.queue.create_user("zoe", Role.USER, actor="test")
        yield here
    structlog.reset_defaults()


def verbs(command: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all verbs, those of groups with the group's."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield " ".join(path)
    for name, inner in (inside or {}).items():
        yield from verbs(inner, (*path, name))


def test_every_verb_has_a_row_or_asks_no_server() -> None:
    assert set(verbs(typer.main.get_command(app))) == {*TABLE, *HERE}
    assert not HERE & set(TABLE)


@pytest.mark.parametrize("verb", sorted(TABLE))
def test_who_may_do_what(scene: Scene, verb: str) -> None:
    expected, line = TABLE[verb]
    found = {who: scene.exit_code(line, who) for who in COLUMNS}
    assert found == dict(zip(COLUMNS, expected, strict=True))


def test_only_an_administrator_gives_more_priority_than_others_have(scene: Scene) -> None:
    found = {who: scene.exit_code("priority {waiting} high", who) for who in COLUMNS}
    assert found == dict(zip(COLUMNS, (REFUSED, MISSING, REFUSED, REFUSED, REFUSED, DONE), strict=True))
