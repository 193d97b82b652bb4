"""One call of the engine: the shards that it runs, and those of further rounds that are ready while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ndif_batch.sweep.task import Task
from ndif_batch.worker.work import ShardWork

ROUNDS = 16
"""How many rounds one call goes on for at most: what the engine keeps of their graphs and constants is then let go."""


class Call:
    """Shards of jobs that may run together. ``further`` gives those that have become ready, without waiting.

    ``works`` are those that are not complete, as ``on_joined`` finds them when some have joined. ``constants`` has the
    tensors of every task that was taken, by digest.
    """

    def __init__(
        self,
        works: Sequence[ShardWork],
        further: Callable[[], Sequence[ShardWork]],
        on_joined: Callable[[], None],
    ) -> None:
        self.works = list(works)
        self.constants: dict[str, Any] = {}
        self._further = further
        self._on_joined = on_joined
        self._places: dict[int, tuple[ShardWork, int]] = {}

    def tasks(self) -> Iterator[Task]:
        """What the shards lack, in order."""
        works: Sequence[ShardWork] = self.works
        taken = 0
        for left in reversed(range(ROUNDS)):
            self._on_joined()
            for work in works:
                self.constants.update(work.job.constants)
                waiting = work.waiting
                for place, task in zip(waiting, work.tasks(waiting), strict=True):
                    self._places[taken] = work, place
                    taken += 1
                    yield task
            works = self._further() if left else ()
            if not works:
                return
            self.works = [work for work in self.works if work.missing] + list(works)

    def place(self, index: int) -> tuple[ShardWork, int]:
        """The shard of the task with this number among those taken, and its place there; asked once."""
        return self._places.pop(index)
