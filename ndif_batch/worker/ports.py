"""What a worker asks of the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from ndif_batch.errors import TaskError
from ndif_batch.sweep.task import Task

NanPolicy: TypeAlias = Literal["allow", "error"]
LayoutChoice: TypeAlias = Literal["auto", "solo"]


class Outcome(Protocol):
    """What became of one task: its saved tensors on the CPU, or its error."""

    @property
    def index(self) -> int:
        """Place of the task in the call."""

    @property
    def saves(self) -> Mapping[str, Any]:
        """Tensors by the names of the graph's saves."""

    @property
    def error(self) -> TaskError | None:
        """Why the task failed."""

    @property
    def prints(self) -> Sequence[tuple[str, str]]:
        """Name and text of what its ``log`` nodes said."""


class Counters(Protocol):
    """What an engine has done since it was made."""

    @property
    def passes(self) -> int:
        """Forward passes of the model."""

    @property
    def tasks(self) -> int:
        """Tasks that were in them."""

    @property
    def tokens(self) -> int:
        """Tokens that went through the model."""

    @property
    def busy_seconds(self) -> float:
        """How long its device had something to do."""


class TaskEngine(Protocol):
    """Runs many tasks of many graphs together and gives each task's outcome as it is known, in any order."""

    @property
    def counters(self) -> Counters:
        """What the engine has done so far."""

    def run(
        self, tasks: Iterable[Task], *, nan: NanPolicy, layout: LayoutChoice, constants: Mapping[str, Any]
    ) -> Iterator[Outcome]:
        """Errors of one task are its outcome; what is raised concerns the whole call.

        Tasks may be taken one by one while earlier ones run; the constants of each are there when it is taken.
        """
