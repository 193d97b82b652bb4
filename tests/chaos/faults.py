"""What may befall an installation: each fault chooses its victim, and says what it did, or nothing."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from sqlalchemy import create_engine, text

from tests.chaos import disk
from tests.chaos.world import LEASE_SECONDS, Being, World

Fault: TypeAlias = Callable[[World], str | None]

LITTLE = 64
"""Bytes: no file of a shard is so small."""
LONG = 3600.0


def kill(world: World) -> str | None:
    """kill -9 of whoever."""
    being = _one(world)
    being.kill()
    return f"{being.role}: killed"


def kill_pilot(world: World) -> str | None:
    """kill -9 of a pilot, or of its controller."""
    return "pilot: killed" if _signal_pilot(world, signal.SIGKILL) else None


def preempt(world: World) -> str | None:
    """A pilot is asked to go."""
    number = world.chance.choice([signal.SIGTERM, signal.SIGUSR2])
    return f"pilot: {number.name}" if _signal_pilot(world, number) else None


def drain(world: World) -> str | None:
    """A process is asked to end, as an upgrade does it."""
    being = _one(world)
    being.ask()
    return f"{being.role}: SIGTERM"


def stop(world: World) -> str | None:
    """A process sleeps, mostly past its lease, and goes on as if nothing had been."""
    being = _one(world)
    _sleep(world, being.pid)
    return f"{being.role}: stopped, continued"


def stop_pilot(world: World) -> str | None:
    """The same of a pilot."""
    pilots = world.pilots()
    if not pilots:
        return None
    _sleep(world, world.chance.choice(pilots))
    return "pilot: stopped, continued"


def restart_database(world: World) -> str | None:
    """PostgreSQL crashes and comes back."""
    if world.server is None:
        return None
    world.server.restart()
    return "PostgreSQL: restarted at once"


def cut_connections(world: World) -> str | None:
    """PostgreSQL ends every connection."""
    if world.server is None:
        return None
    engine = create_engine(world.server.url)
    with engine.connect() as connection:
        others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
    engine.dispose()
    return "PostgreSQL: connections cut"


def fill_disk(world: World) -> str | None:
    """For a while the disk is full: archives, and SQLite, lie there."""
    if not world.disk.is_mount():
        return None
    ballast = world.disk / "ballast"
    if ballast.exists():
        return None
    disk.fill(ballast)
    world.after(world.chance.uniform(0.2, 2.0), lambda: ballast.unlink(missing_ok=True))
    return "disk: full"


def limit_files(world: World) -> str | None:
    """For a while a worker may write no file that is longer than a few bytes."""
    being = _one(world, "worker")
    with suppress(ProcessLookupError):
        before = resource.prlimit(being.pid, resource.RLIMIT_FSIZE, (LITTLE, resource.RLIM_INFINITY))

        def lift() -> None:
            with suppress(ProcessLookupError):
                resource.prlimit(being.pid, resource.RLIMIT_FSIZE, before)

        world.after(world.chance.uniform(0.2, 2.0), lift)
        return "disk: quota of a worker used up"
    return None


def turn_clock(world: World) -> str | None:
    """The clock of the host jumps; SQLite has no other."""
    if world.server is not None:
        return None
    world.turn_clock(world.chance.choice([0.0, world.chance.uniform(-LONG, LONG)]))
    return "clock: turned"


def lose_node(world: World) -> str | None:
    """A node dies, and is there again a while later."""
    if world.slurm is None:
        return None
    slurm, node = world.slurm, world.chance.choice(["n0", "n1"])
    slurm("kill-node", node)
    world.after(world.chance.uniform(1, 15), lambda: slurm("start-node", node))
    return "Slurm: node killed"


def lose_controller(world: World) -> str | None:
    """Slurm's controller dies, and is there again a while later."""
    if world.slurm is None:
        return None
    slurm = world.slurm
    slurm("kill-ctld")
    world.after(world.chance.uniform(0.5, 5), lambda: slurm("start-ctld"))
    return "Slurm: controller killed"


ALL: dict[Fault, float] = {
    kill: 4,
    kill_pilot: 1.5,
    preempt: 0.5,
    drain: 1,
    stop: 2,
    stop_pilot: 0.7,
    restart_database: 0.7,
    cut_connections: 0.7,
    fill_disk: 1,
    limit_files: 1,
    turn_clock: 0.7,
    lose_node: 0.7,
    lose_controller: 0.4,
}
"""Every fault, and how often it is chosen."""


def befall(world: World) -> None:
    """One fault of those that can be."""
    (fault,) = world.chance.choices([*ALL], [*ALL.values()])
    what = fault(world)
    if what is not None:
        world.faults[what] += 1


def _one(world: World, role: str = "") -> Being:
    return world.chance.choice([one for one in world.beings if one.role.endswith(role)])


def _signal_pilot(world: World, number: signal.Signals) -> bool:
    pilots = world.pilots()
    if pilots:
        with suppress(ProcessLookupError):
            os.kill(world.chance.choice(pilots), number)
            return True
    return False


def _sleep(world: World, pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)

    def wake() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    world.after(world.chance.uniform(0.2, 2.0) * LEASE_SECONDS, wake)
