"""Writes the pages that follow from the code and from measurements: commands, API, operations, states, performance."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from archive_numbers import archive_section
from engine_numbers import engine_section

from ndif_batch.client.local import LocalQueue
from ndif_batch.config import Settings
from ndif_batch.graph.operations import FAMILIES, Operation
from ndif_batch.graph.operations.operation import MAX_DIMENSIONS, MAX_ELEMENTS
from ndif_batch.graph.signatures import TYPE_DOCS
from ndif_batch.queue.cluster import PilotState
from ndif_batch.queue.records import EventKind, JobState, ShardState, WorkerState
from ndif_batch.queue.schema import upgrade
from ndif_batch.queue.states import JOB, PILOT, SHARD, SUSPECT_DEATHS, WORKER, Transition
from ndif_batch.server.app import create_app, document

NUMBERS: Mapping[str, Callable[[], str]] = {"engine": engine_section, "archive": archive_section}
"""Sections of the performance page that follow from reports of benchmarks."""

HERE = Path(__file__).resolve().parent
NOTE = "<!-- Written by `make docs`. Change the code, not this page. -->"

MACHINES: Mapping[str, tuple[str, tuple[StrEnum, ...], Mapping[EventKind, Transition[Any]]]] = {
    "Job": ("One submission. Its last shard ends it.", (JobState.PENDING, JobState.HELD), JOB),
    "Shard": (
        "A block of tasks, leased by one worker at a time. `DONE` means that all its results are on disk, except for"
        " tasks that failed by themselves.",
        (ShardState.PENDING,),
        SHARD,
    ),
    "Worker": ("A process that holds one model.", (WorkerState.STARTING,), WORKER),
    "Pilot": (
        "A process or Slurm job that the scheduler starts to run one worker. A row is written before the pilot is"
        " started, so that one whose start was interrupted is found by its name.",
        (PilotState.REQUESTED,),
        PILOT,
    ),
}
"""Each machine: what it is, where it begins, its transitions."""

WHEN: Mapping[EventKind, str] = {
    EventKind.JOB_HELD: "somebody holds the job: no more of its shards are leased, what is leased goes on",
    EventKind.JOB_RELEASED: "somebody ends the hold; the job goes where it would be without it",
    EventKind.JOB_STARTED: "its first shard is leased",
    EventKind.JOB_COMPLETED: "its last shard ends, and no task failed",
    EventKind.JOB_FAILED: "its last shard ends, and some task failed; what the others saved can be read",
    EventKind.JOB_CANCELLED: "somebody cancels it; its shards are taken from their workers",
    EventKind.JOB_RETRIED: "somebody has the shards with failed tasks run again",
    EventKind.SHARD_LEASED: "a worker takes it, with a new epoch: whoever held it before can no longer commit it",
    EventKind.SHARD_DONE: "its worker has written the results and commits them",
    EventKind.SHARD_FAILED: (
        "it fails as a whole and has no tries left, or the error is not one that goes away, or it killed"
        f" {SUSPECT_DEATHS + 1} workers"
    ),
    EventKind.SHARD_DEFERRED: "it fails as a whole and has tries left; it waits first, longer each time",
    EventKind.SHARD_RETURNED: "its worker gives it back unfinished, because it drains; no try is counted",
    EventKind.SHARD_EXPIRED: "its lease ends without the worker's fault; no try is counted",
    EventKind.SHARD_ORPHANED: (
        f"its worker died; after {SUSPECT_DEATHS} deaths it runs alone, so that it harms no other shard"
    ),
    EventKind.SHARD_CANCELLED: "its job is cancelled",
    EventKind.SHARD_RETRIED: "its job is retried; tries and deaths count from zero again",
    EventKind.WORKER_RUNNING: "its model is loaded, or it was silent and speaks again",
    EventKind.WORKER_DRAINING: "it is asked to finish what it does and to end",
    EventKind.WORKER_STOPPED: "it ends in good order and gives back what it holds",
    EventKind.WORKER_LOST: "it was silent for longer than its lease, or is known to be gone",
    EventKind.PILOT_QUEUED: "its launcher has it in its queue, or has put it back there",
    EventKind.PILOT_RUNNING: "its process runs",
    EventKind.PILOT_DRAINING: "it is asked to finish what it does and to end",
    EventKind.PILOT_ENDED: "it ends in good order, or through no fault of its shards: its walltime, Slurm, an operator",
    EventKind.PILOT_FAILED: "it cannot start, ends with an error, or vanishes",
}


def pages() -> dict[str, str]:
    """Each page's name and text."""
    return {
        "cli.md": cli(),
        "openapi.json": openapi(),
        "operations.md": operations(),
        "performance.md": performance(),
        "states.md": states(),
    }


def performance() -> str:
    """The page as it is, with every section of numbers written anew between its markers."""
    text = (HERE / "performance.md").read_text()
    for name, section in NUMBERS.items():
        begin, end = f"<!-- numbers: {name} -->", f"<!-- end: {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{section()}\n\n{end}{after}"
    return text


def cli() -> str:
    """Every command with its arguments and options."""
    typer = str(Path(sys.executable).with_name("typer"))
    command = [typer, "ndif_batch.cli.main", "utils", "docs", "--name", "ndif-batch"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = re.sub(r"^\* `--(install|show)-completion`.*\n", "", html.unescape(done.stdout), flags=re.MULTILINE)
    return f"{NOTE}\n\n{text.strip()}\n"


def openapi() -> str:
    """The document of the HTTP API."""
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/queue.db"
        upgrade(url)
        with LocalQueue.open(url) as queue:
            return json.dumps(document(create_app(queue, Settings())), indent=1, ensure_ascii=False) + "\n"


def operations() -> str:
    """Every operation of the table, by family."""
    return "\n".join([NOTE, "", *_operations()])


def _operations() -> Iterator[str]:
    yield "# Operations of a graph\n"
    yield "Everything that an intervention graph can say. Names and arguments are torch's where torch has them.\n"
    yield (
        "Results follow torch in shape and dtype. Where torch would raise because of a shape or a type, the graph is"
        " refused before it runs. So is a result of more than"
        f" {MAX_ELEMENTS:,} elements or {MAX_DIMENSIONS} dimensions.\n"
    )
    yield "| type | an argument of it is |\n|---|---|"
    yield from (f"| `{kind}` | {meaning} |" for kind, meaning in TYPE_DOCS.items())
    yield "\nA default of `None` means that `None` may be given, too.\n"
    for family, members in FAMILIES.items():
        yield f"## {family}\n\n| operation | meaning |\n|---|---|"
        yield from map(_row, members)
        yield ""


def _row(operation: Operation) -> str:
    fields = f" (fields: {', '.join(operation.fields)})" if operation.fields else ""
    text = f"{operation.doc}{fields}".replace("|", "\\|")
    return f"| `{operation}` | {text} |"


def states() -> str:
    """The state machines of the queue: a picture and a table of each."""
    return "\n".join([NOTE, "", *_states()])


def _states() -> Iterator[str]:
    yield "# State machines\n"
    yield (
        "How jobs, shards, workers and pilots come from one state into another. A change is made only from a state that"
        " the table allows, in one transaction with the event that tells of it; `ndif-batch explain JOB` lists a job's"
        " events. The tables are those of `ndif_batch/queue/states.py`.\n"
    )
    for name, (meaning, begins, moves) in MACHINES.items():
        yield f"## {name}\n\n{meaning}\n\n```mermaid\nstateDiagram-v2"
        yield from _picture(name, begins, moves)
        yield "```\n\n| event | from | to | when |\n|---|---|---|---|"
        yield from (
            f"| `{kind}` | {_names(move.sources)} | {_names(move.targets)} | {WHEN[kind]} |"
            for kind, move in moves.items()
        )
        yield ""


def _picture(name: str, begins: tuple[StrEnum, ...], moves: Mapping[EventKind, Transition[Any]]) -> Iterator[str]:
    """The arrows of a Mermaid state diagram: in from the dot, between states, and out of those that nothing leaves."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for kind, move in moves.items():
        for source in _in_order(move.sources):
            for target in move.targets:
                arrows.setdefault((source, target), []).append(kind.removeprefix(f"{name.lower()}."))
    yield from (f"    [*] --> {state}" for state in begins)
    yield from (f"    {source} --> {target} : {', '.join(kinds)}" for (source, target), kinds in arrows.items())
    left = {source for source, _ in arrows}
    yield from (f"    {state} --> [*]" for state in type(begins[0]) if state not in left)


def _names(found: Iterable[StrEnum]) -> str:
    return ", ".join(f"`{state}`" for state in _in_order(found))


def _in_order(found: Iterable[StrEnum]) -> list[StrEnum]:
    """States in the order in which their enum tells them."""
    states = list(found)
    return [state for state in type(states[0]) if state in states]


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, text in pages().items():
        (folder / name).write_text(text)
