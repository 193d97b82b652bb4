"""How far a worker is, counted from two threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker has done since it began; failed tasks are done too, and those that were re-used.

    ``busy`` is the share of its time in which its device was at work and ``ended`` why it ended, known when it has.
    """

    tasks_done: int = 0
    tasks_failed: int = 0
    shards_done: int = 0
    tasks_reused: int = 0
    busy: float | None = field(default=None, compare=False)
    ended: str = field(default="", compare=False)


class Tally:
    """Counts the tasks that the engine ends and the shards that the writer commits, and tells each change."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self.progress = Progress()
        self._on_progress = on_progress
        self._counting = Lock()

    def task(self, *, failed: bool) -> None:
        """One task more has its outcome."""
        self._count(tasks_done=1, tasks_failed=int(failed))

    def reused(self, count: int) -> None:
        """So many tasks more were saved by an earlier job."""
        self._count(tasks_done=count, tasks_reused=count)

    def shards(self, count: int) -> None:
        """So many shards more are done."""
        self._count(shards_done=count)

    def _count(
        self, *, tasks_done: int = 0, tasks_failed: int = 0, shards_done: int = 0, tasks_reused: int = 0
    ) -> None:
        with self._counting:
            so_far = self.progress
            self.progress = Progress(
                so_far.tasks_done + tasks_done,
                so_far.tasks_failed + tasks_failed,
                so_far.shards_done + shards_done,
                so_far.tasks_reused + tasks_reused,
            )
            self._on_progress(self.progress)
