"""What Slurm says of its partitions and nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ndif_batch.launcher.slurm import command

PARTITIONS, NODES = "%P|%a|%l|%D|%T", "%N|%P|%T|%c|%m|%G|%E"


@dataclass(frozen=True, slots=True)
class Partition:
    """So many ``nodes`` of a partition in one state; ``available`` is Slurm's word, ``limit`` a job's longest time."""

    name: str
    available: str
    limit: str
    nodes: int
    state: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node. ``memory`` is in MiB; ``reason`` is why it is not in use."""

    name: str
    partitions: tuple[str, ...]
    state: str
    cpus: int
    memory: int
    resources: str
    reason: str


def partitions() -> list[Partition]:
    """All partitions; ``UnavailableError`` if Slurm does not answer."""
    return [Partition(name, up, limit, int(nodes), state) for name, up, limit, nodes, state in _rows(PARTITIONS)]


def nodes() -> list[Node]:
    """All nodes; ``UnavailableError`` if Slurm does not answer."""
    found: dict[str, Node] = {}
    for name, partition, state, cpus, memory, resources, reason in _rows(NODES, "--Node"):
        others = found[name].partitions if name in found else ()
        size = int(memory.rstrip("+"))
        found[name] = Node(name, (*others, partition), state, int(cpus), size, _given(resources), _given(reason))
    return list(found.values())


def _rows(form: str, *options: str) -> Iterator[list[str]]:
    for line in command("sinfo", "--noheader", *options, f"--format={form}").splitlines():
        yield [field.strip() for field in line.split("|", form.count("|"))]


def _given(word: str) -> str:
    return "" if word in ("(null)", "none") else word
