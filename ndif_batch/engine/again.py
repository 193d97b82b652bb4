"""Tasks that are run once more, because what they saved may not be what they save alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ndif_batch.sweep.task import Task

if TYPE_CHECKING:
    from ndif_batch.engine.engine import Outcome


class Again:
    """Holds the tasks of a call until their outcomes are known; ``run`` is how unsound ones are run once more."""

    def __init__(self, run: Callable[[Sequence[Task]], Iterator[Outcome]]) -> None:
        self._run = run
        self._waiting: dict[int, Task] = {}

    def noted(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The tasks as they are taken."""
        for index, task in enumerate(tasks):
            self._waiting[index] = task
            yield task

    def settled(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """The outcomes of some batches, unsound ones after the others and anew."""
        unsound: dict[int, Task] = {}
        for outcome in outcomes:
            task = self._waiting.pop(outcome.index)
            if outcome.unsound:
                unsound[outcome.index] = task
            else:
                yield outcome
        if unsound:
            places = list(unsound)
            for outcome in self._run(list(unsound.values())):
                yield replace(outcome, index=places[outcome.index], unsound=False)
