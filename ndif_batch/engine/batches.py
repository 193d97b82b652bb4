"""Cuts tasks into batches, each as large as the tokens and the memory of one pass allow."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace

from ndif_batch.engine.loaded import Footprint
from ndif_batch.engine.memory import Live
from ndif_batch.engine.program import Program
from ndif_batch.engine.tasks import Member

MOST_SAVED = 2**29
"""Bytes that the tasks of a pass may save together: all of them lie in main memory until they are written."""
RESIDENT = 0.25
"""How much of what a token takes inside a block it takes between blocks."""


@dataclass(frozen=True, slots=True)
class WayBack:
    """What gradients of tasks need: ``tokens`` in blocks, all those through which they go and the most in one;
    ``positions`` in the head; bytes of what is ``noted`` at sites."""

    token_blocks: int = 0
    tokens: int = 0
    positions: int = 0
    noted: int = 0

    def __add__(self, other: WayBack) -> WayBack:
        return WayBack(
            self.token_blocks + other.token_blocks,
            self.tokens + other.tokens,
            self.positions + other.positions,
            self.noted + other.noted,
        )

    def bytes(self, footprint: Footprint, *, checkpointed: bool) -> float:
        """What is kept for them while they go back, and what the block or the head takes at which they are.

        ``checkpointed`` says that of blocks only what goes in is kept, but for the one at which they are.
        """
        kept = footprint.kept * self.token_blocks
        if checkpointed:
            kept = footprint.entering * self.token_blocks + footprint.kept * self.tokens
        return kept + self.noted + max(footprint.token * self.tokens, footprint.position * self.positions)


@dataclass(frozen=True, slots=True)
class Need:
    """What a task brings to a pass: ``tokens`` of its own, runs that it ``shares`` with others, each with its
    tokens, ``positions`` in the head, what the values of its nodes take, and its gradients.

    ``later`` are the most tokens of its own in a pass after its first.
    """

    tokens: int
    shares: frozenset[tuple[Hashable, int]]
    positions: int
    live: Live
    back: WayBack = WayBack()
    later: int = 0

    def going_on(self) -> Need:
        """What it brings to the passes after its first."""
        return replace(self, tokens=self.later, shares=frozenset(), positions=self.later)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task with the program that it shares with others; ``alone`` says that it runs by itself."""

    program: Program
    member: Member
    alone: bool
    need: Need

    def going_on(self) -> Prepared:
        """The task after its first pass."""
        return replace(self, need=self.need.going_on())


@dataclass
class Batch:
    """Tasks of one pass, and what they need together."""

    tasks: list[Prepared] = field(default_factory=list)
    tokens: int = 0
    _positions: int = 0
    _most: int = 0
    _between: int = 0
    _saved: int = 0
    _back: WayBack = WayBack()
    _within: dict[int, int] = field(default_factory=dict)
    _shared: set[tuple[Hashable, int]] = field(default_factory=set)

    def add(self, task: Prepared) -> None:
        """Takes a task in."""
        self.tokens += self._more(task.need)
        self._shared |= task.need.shares
        self._positions += task.need.positions
        self._between += task.need.live.between
        self._saved += task.need.live.saved
        self._back += task.need.back
        self._within[id(task.program)] = self._within_of(task)
        self._most = max(self._most, self._within[id(task.program)])
        self.tasks.append(task)

    def has_room(self, task: Prepared, max_tokens: int, max_bytes: int, footprint: Footprint) -> bool:
        """Whether a further task can go with those that are there."""
        if task.alone or any(other.alone for other in self.tasks[-1:]):
            return False
        if self._saved + task.need.live.saved > MOST_SAVED:
            return False
        tokens = self.tokens + self._more(task.need)
        positions = self._positions + task.need.positions
        own = self._between + task.need.live.between, max(self._most, self._within_of(task))
        back = (self._back + task.need.back).bytes(footprint, checkpointed=False)
        return tokens <= max_tokens and _bytes(footprint, tokens, positions, *own) + back <= max_bytes

    @property
    def differentiated(self) -> bool:
        """Whether one of the tasks has gradients."""
        return self._back != WayBack()

    def bytes(self, footprint: Footprint, *, checkpointed: bool = False) -> int:
        """What a pass with these tasks is estimated to take beside the weights."""
        there = _bytes(footprint, self.tokens, self._positions, self._between, self._most)
        return there + int(self._back.bytes(footprint, checkpointed=checkpointed))

    def _within_of(self, task: Prepared) -> int:
        """What one moment takes for the tasks of a program together with a further one: programs take turns."""
        return self._within.get(id(task.program), 0) + task.need.live.within

    def _more(self, need: Need) -> int:
        if need.shares <= self._shared:
            return need.tokens
        return need.tokens + sum(tokens for _, tokens in need.shares - self._shared)


class Waiting:
    """Tasks that have not begun, in order. A pass has at most so many tokens and bytes if it has several tasks."""

    def __init__(self, tasks: Iterable[Prepared], max_tokens: int, max_bytes: int, footprint: Footprint) -> None:
        self._tasks = iter(tasks)
        self._first: Prepared | None = None
        self._max_tokens = max_tokens
        self._max_bytes = max_bytes
        self._footprint = footprint

    @property
    def first(self) -> Prepared | None:
        """The one that is next; ``None`` if there is none."""
        if self._first is None:
            self._first = next(self._tasks, None)
        return self._first

    def batch(self) -> Batch | None:
        """The next batch; ``None`` if nobody waits."""
        if (task := self.first) is None:
            return None
        batch = Batch()
        batch.add(task)
        self._first = None
        self.join(batch)
        return batch

    def join(self, batch: Batch) -> list[Prepared]:
        """Puts tasks into a batch as long as it has room for them."""
        joined = []
        while (task := self.first) is not None and batch.has_room(
            task, self._max_tokens, self._max_bytes, self._footprint
        ):
            batch.add(task)
            joined.append(task)
            self._first = None
        return joined


def _bytes(footprint: Footprint, tokens: int, positions: int, between: int, within: int) -> int:
    """What waits from moment to moment, and the most of: a block at work, the head at work, nodes at work."""
    at_work = (footprint.token * tokens, footprint.position * positions, RESIDENT * footprint.token * tokens + within)
    return int(footprint.fixed + between + max(at_work))
