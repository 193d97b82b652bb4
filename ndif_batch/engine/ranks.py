"""The processes that hold one model together, a part of its weights each: they carry out the same passes.

Every rank does the same in the same order, so that what one sends to the others in the middle of a pass meets its
counterpart. Rank 0 leads: it says what is to be done; the others follow. One whose pass breaks does its part of what
the others still send, with nothing in it, until all have ended the pass; then all know that it broke.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from mmap import mmap
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from ndif_batch.errors import UsageError

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""How long a rank waits in the middle of a pass for one that is alive."""
IDLE = timedelta(days=30)
"""How long the others wait for rank 0 to say what is next."""
LOOK_SECONDS = 1.0
LOST = 70
"""What a process ends with when another rank is gone: nothing that it has on its way can come to an end."""

KEPT, TENSORS, AXES = 16_384, 4, 4
HEAD, ENTRY = 16, 3 + TENSORS * (2 + AXES)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.bool, torch.float64)


class Sent(NamedTuple):
    """One thing that a rank has sent to the others: what kind, which one of that kind, and tensors like those in it."""

    kind: int
    which: int
    tensors: tuple[tuple[torch.dtype, tuple[int, ...]], ...]


class BrokenPassError(RuntimeError):
    """The pass broke on another rank."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Which of how many ranks a process is, as torchrun's variables say."""

    rank: int
    size: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Seat | None:
        """The seat that the environment gives; ``None`` if it gives none, or there is only one."""
        try:
            seat = cls(int(environment["RANK"]), int(environment["WORLD_SIZE"]))
        except (KeyError, ValueError):
            return None
        if environment.get("LOCAL_WORLD_SIZE", environment["WORLD_SIZE"]) != environment["WORLD_SIZE"]:
            raise UsageError("the ranks of a model have to be processes of one host")
        return seat if seat.size > 1 else None


class Ranks:
    """This process's place among the ranks, and what goes on between them."""

    def __init__(self, seat: Seat, device: torch.device) -> None:
        self.rank, self.size = seat.rank, seat.size
        self.leads = self.running = False
        if device.type == "cuda":
            torch.cuda.set_device(seat.rank)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        self._talk: Any = dist.new_group(backend="gloo", timeout=IDLE)
        self._board = _Board(self)
        self._replay: Callable[[Sent], None] | None = None
        self._pass = 0

    def said(self, what: Any = None) -> Any:
        """What rank 0 says to all; only its own ``what`` counts."""
        box = [what]
        dist.broadcast_object_list(box, src=0, group=self._talk)
        return box[0]

    def all(self, own: Any) -> list[Any]:
        """What every rank says, by rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, own, group=self._talk)
        return found

    def gathered(self, part: torch.Tensor, axis: int) -> torch.Tensor:
        """The parts of all ranks, one behind the other along ``axis``, which may be counted from the end."""
        axis %= part.ndim
        found = part.new_empty(self.size, *part.shape)
        dist.all_gather(list(found.unbind()), part.contiguous())
        return found.movedim(0, axis).flatten(axis, axis + 1)

    def most(self, numbers: torch.Tensor) -> torch.Tensor:
        """The largest of every number over the ranks."""
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
        return numbers

    def free_bytes(self, own: int) -> int:
        """The least memory that a rank has free: of the others what they had at the end of their last pass."""
        return min(own, *self._board.free())

    def show_free(self, own: int) -> None:
        """Says how much memory this rank has free before its first pass."""
        self._board.show_free(own)

    def sending(self, kind: int, which: int, tensors: Sequence[torch.Tensor], send: Callable[[], T]) -> T:
        """Does ``send``, and says so before: who has broken off does the same with tensors that hold nothing."""
        self._board.note(Sent(kind, which, tuple((one.dtype, tuple(one.shape)) for one in tensors)))
        before = self._sequence()
        try:
            return send()
        except BaseException:
            if self._sequence() == before:
                self._board.take_back()
            raise

    def _sequence(self) -> int:
        """How much this process has sent to the others, as torch counts it."""
        try:
            group: Any = dist.distributed_c10d._get_default_group()
            number: int = group._get_sequence_number_for_group()
        except RuntimeError:  # a backend that does not count
            return 0
        return number

    def replays(self, replay: Callable[[Sent], None]) -> None:
        """How this process does its part of what others have sent."""
        self._replay = replay

    @contextmanager
    def one_pass(self, free: Callable[[], int]) -> Iterator[None]:
        """Everything inside is done by all ranks, or has broken for all: ``BrokenPassError`` if on another one."""
        self._pass += 1
        broken: BaseException | None = None
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever it is, the others are told and go on
            broken = error
        if broken is not None:
            broken.__traceback__ = None  # it holds the pass's tensors
        elsewhere = self._board.ended(self._pass, broken, free, self._replayed)
        if broken is not None:
            raise broken
        if elsewhere:
            raise BrokenPassError(elsewhere)

    def _replayed(self, sent: Sent) -> None:
        assert self._replay is not None
        try:
            self._replay(sent)
        except Exception as error:  # noqa: BLE001  the ranks are out of step, which nothing can mend
            lost(f"rank {self.rank} cannot do its part of a pass: {error}")

    @contextmanager
    def watched(self, on_lost: Callable[[str], object] | None = None) -> Iterator[None]:
        """Meanwhile ``on_lost`` hears of it if the process of another rank ends; else this one ends as well."""
        over = Event()

        def look() -> None:
            while not over.wait(LOOK_SECONDS):
                gone = self._board.gone()
                if gone is not None and not over.is_set():
                    (on_lost or lost)(f"the process of rank {gone} is gone")
                    return

        watch = Thread(target=look, name="ranks", daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()

    def close(self) -> None:
        """Leaves the others; no pass may be on its way."""
        dist.destroy_process_group()


def lost(reason: str) -> None:
    """Ends this process at once: a device that waits for a rank that is gone waits for ever."""
    os.write(2, f"ndif_batch: {reason}\n".encode())
    os._exit(LOST)


class _Board:
    """What the ranks of a host show each other in shared memory: what they have sent, and how their passes ended.

    A row a rank: its process, how much it has sent so far, its free memory, the last pass that it has ended and, for
    the last two passes, how much it had sent at their end and whether they broke; what it sent last; why a pass broke.
    A rank is never more than one pass ahead of another.
    """

    PROCESS, SENT, FREE, ENDED, IN_PASS, BROKE = 0, 1, 2, 3, 4, 6
    WORDS = 512

    def __init__(self, ranks: Ranks) -> None:
        self._rank, self._size = ranks.rank, ranks.size
        rows = (ranks.size, HEAD + KEPT * ENTRY)
        size = 8 * rows[0] * rows[1]
        file, path = tempfile.mkstemp(prefix="ndif-batch-ranks-") if ranks.rank == 0 else (-1, "")
        path = ranks.said(path)
        file = os.open(path, os.O_RDWR) if file == -1 else file
        if ranks.rank == 0:
            os.truncate(file, size + ranks.size * self.WORDS)
        ranks.all(None)
        self._memory = mmap(file, size + ranks.size * self.WORDS)
        os.close(file)
        self._rows = np.ndarray(rows, np.int64, self._memory)
        self._words = np.ndarray((ranks.size, self.WORDS), np.uint8, self._memory, offset=size)
        self._own = self._rows[self._rank]
        self._own[self.PROCESS] = os.getpid()
        self._own[self.FREE] = np.iinfo(np.int64).max
        ranks.all(None)
        if ranks.rank == 0:
            os.unlink(path)

    def note(self, sent: Sent) -> None:
        entry = [sent.kind, sent.which, len(sent.tensors)]
        for dtype, shape in sent.tensors:
            entry += [DTYPES.index(dtype), len(shape), *shape, *[0] * (AXES - len(shape))]
        count = int(self._own[self.SENT])
        first = HEAD + (count % KEPT) * ENTRY
        self._own[first : first + len(entry)] = entry
        self._own[self.SENT] = count + 1

    def take_back(self) -> None:
        """The last thing noted has not been sent."""
        self._own[self.SENT] -= 1

    def show_free(self, own: int) -> None:
        self._own[self.FREE] = own

    def free(self) -> list[int]:
        return [int(self._rows[rank, self.FREE]) for rank in range(self._size)]

    def gone(self) -> int | None:
        """A rank whose process is no more."""
        return next((rank for rank in range(self._size) if not _alive(int(self._rows[rank, self.PROCESS]))), None)

    def ended(
        self, number: int, broken: BaseException | None, free: Callable[[], int], replay: Callable[[Sent], None]
    ) -> str:
        """Waits until all have ended pass ``number``, with ``replay`` for what others have sent and this one has not.

        Says on which other rank it broke and why, or nothing.
        """
        slot = number % 2
        if broken is not None:
            words = f"{type(broken).__name__}: {broken}".encode()[: self.WORDS - 1]
            self._words[self._rank] = np.frombuffer(words.ljust(self.WORDS, b"\0"), np.uint8)
        self._own[self.IN_PASS + slot] = self._own[self.SENT]
        self._own[self.BROKE + slot] = number if broken is not None else 0
        self._own[self.FREE] = free()
        self._own[self.ENDED] = number
        since = monotonic()
        while not self._is_over(number, slot):
            further = self._further(number, slot)
            if further is not None:
                sent = self._entry(further, int(self._own[self.SENT]))
                self.note(sent)
                replay(sent)
                self._own[self.IN_PASS + slot] = self._own[self.SENT]
                since = monotonic()
            elif monotonic() - since > PATIENCE.total_seconds():
                lost(f"rank {self._rank} has waited too long for the others")
            else:
                sleep(2e-5)
        others = [rank for rank in range(self._size) if int(self._rows[rank, self.BROKE + slot]) == number]
        return f"on rank {others[0]}: {self._reason(others[0])}" if others else ""

    def _is_over(self, number: int, slot: int) -> bool:
        """Whether all have ended a pass, and all have sent the same."""
        own = int(self._own[self.IN_PASS + slot])
        return all(int(row[self.ENDED]) >= number and int(row[self.IN_PASS + slot]) == own for row in self._rows)

    def _further(self, number: int, slot: int) -> int | None:
        """A rank that has sent more in this pass than this one."""
        for rank, row in enumerate(self._rows):
            ended = int(row[self.ENDED]) >= number
            sent = int(row[self.IN_PASS + slot] if ended else row[self.SENT])
            if sent > int(self._own[self.SENT]) and ended is (int(row[self.ENDED]) >= number):
                return rank
        return None

    def _entry(self, rank: int, number: int) -> Sent:
        first = HEAD + (number % KEPT) * ENTRY
        kind, which, count, *rest = self._rows[rank, first : first + ENTRY].tolist()
        tensors = []
        for place in range(0, count * (2 + AXES), 2 + AXES):
            dtype, axes, *sizes = rest[place : place + 2 + AXES]
            tensors.append((DTYPES[dtype], tuple(sizes[:axes])))
        return Sent(kind, which, tuple(tensors))

    def _reason(self, rank: int) -> str:
        words: bytes = self._words[rank].tobytes()
        return words.rstrip(b"\0").decode(errors="replace")


def _alive(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
