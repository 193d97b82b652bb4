"""Which shards a worker gets next: whose turn it is by the policy of :mod:`ndif_batch.scheduling`, and what is free."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row

from ndif_batch.queue import free, states, turns
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.turns import Turn, Turns
from ndif_batch.scheduling import Candidate, Choice, Whole, choose, ordered

NEXT = 8
"""How many further users a lease looks at to fill the room that nothing more of the first ones fits into."""

CRUMBS = 4
"""How many shards of each of those it looks at."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a worker asks for; ``seconds_per_token`` is measured, 0 if unknown; ``holding`` means that it has work."""

    model: str
    max_tokens: int
    max_shards: int
    seconds_per_token: float
    holding: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """The shards to lease, locked and in order, and what was looked at to choose them, user by user.

    ``rooms`` are those of users whose running shards are limited.
    """

    shards: list[Row[Any]]
    looked: Mapping[str, Sequence[Row[Any]]]
    heads: Mapping[str, int]
    rooms: Mapping[str, int]

    def moved_on(self, taken: Collection[int]) -> set[str]:
        """The users whose first waiting job is another or none once those shards are ``taken``."""
        rest = {name: (row.job_id for row in rows if row.id not in taken) for name, rows in self.looked.items()}
        return {name for name, jobs in rest.items() if next(jobs, None) != self.heads[name]}


def chosen(tx: Transaction, wanted: Wanted, order: Turns) -> Chosen:
    """The shards to lease, locked. Users are looked at only as far as the policy reaches them."""
    return _Search(tx, wanted, order).run()


class _Search:
    """``turns`` are the users found so far, ``heads`` stand for those not looked at, ``looked`` is what others have."""

    def __init__(self, tx: Transaction, wanted: Wanted, order: Turns) -> None:
        self._tx = tx
        self._wanted = wanted
        self._order = order
        self._turns: dict[str, Turn] = {}
        self._heads: dict[str, Candidate] = {}
        self._looked: dict[Candidate, list[Row[Any]]] = {}
        self._rows: dict[str, list[Row[Any]]] = {}
        self._whole = Whole(0.0, 0.0)
        self._limit = 0

    def run(self) -> Chosen:
        self._find_turns(NEXT + 1)
        step, crumbs = 1, False
        while True:
            choices = self._choose()
            reached = list(dict.fromkeys(self._unlooked(choices)))
            if not reached or crumbs:
                return self._result([choice for choice in choices if choice.candidate in self._looked])
            crumbs = self._leaves_some(choices)
            self._look(reached[: NEXT if crumbs else step], CRUMBS if crumbs else self._wanted.max_shards + 1)
            step *= 2
            if not self._heads and len(self._turns) == self._limit:
                self._find_turns(4 * self._limit)

    def _find_turns(self, limit: int) -> None:
        wanted, claim = self._wanted, not self._turns
        found, self._whole = self._order.first(self._tx, wanted.model, wanted.seconds_per_token, limit, claim=claim)
        for turn in found:
            if turn.head.user not in self._turns:
                self._turns[turn.head.user] = mine = self._served(turn) if turn.busy else turn
                self._heads[turn.head.user] = mine.head
        self._limit = limit

    def _served(self, turn: Turn) -> Turn:
        """Whom another lease serves at this moment, as they will stand then: each lease begins with another user."""
        usage = turn.usage + self._wanted.max_tokens * self._wanted.seconds_per_token
        return replace(turn, head=replace(turn.head, age_seconds=0.0), served_at=self._tx.now, usage=usage)

    def _choose(self) -> list[Choice]:
        wanted = self._wanted
        return choose(
            *self._candidates(),
            wanted.max_tokens,
            max_shards=wanted.max_shards,
            holding=wanted.holding,
            whole=self._whole,
        )

    def _candidates(self) -> tuple[list[Candidate], dict[str, float], dict[str, float]]:
        usage = {name: turn.usage for name, turn in self._turns.items()}
        shares = {name: turn.shares for name, turn in self._turns.items()}
        return [*self._heads.values(), *self._looked], usage, shares

    def _unlooked(self, choices: Iterable[Choice]) -> Iterable[str]:
        return (choice.candidate.user for choice in choices if choice.candidate not in self._looked)

    def _leaves_some(self, choices: Iterable[Choice]) -> bool:
        """Whether something did not fit of those who come before the first user that was not looked at."""
        taken = {choice.candidate: choice.shards for choice in choices}
        for one in ordered(*self._candidates(), self._whole):
            if one not in self._looked:
                return False
            if taken.get(one, 0) < one.shards and not one.alone:
                return True
        return False

    def _look(self, names: list[str], limit: int) -> None:
        """What of these users' shards can be had: candidates of equal shards, each with their rows."""
        self._rows |= {name: [] for name in names}
        for name in names:
            del self._heads[name]
        found: dict[tuple[str, int, int, bool], list[Row[Any]]] = {}
        for row in free.shards(self._tx, self._wanted.model, names, limit):
            self._rows[row.user].append(row)
        for name in names:
            room, most = self._turns[name].room, self._wanted.max_shards
            for row in self._rows[name][: most if room is None else min(room, most)]:
                kind = (name, row.job_id, row.tasks * row.tokens_per_task, states.suspect(row.deaths))
                found.setdefault(kind, []).append(row)
        for (name, _, tokens, alone), rows in found.items():
            candidate = self._candidate(rows[0], self._turns[name], tokens=tokens, shards=len(rows), alone=alone)
            self._looked[candidate] = rows

    def _candidate(self, row: Row[Any], turn: Turn, *, tokens: int, shards: int, alone: bool) -> Candidate:
        return Candidate(
            job_id=row.job_id,
            user=row.user,
            tokens=tokens,
            shards=shards,
            priority=row.priority,
            age_seconds=turns.age(row.submitted_at, turn.served_at, self._tx.now),
            alone=alone,
        )

    def _result(self, choices: Iterable[Choice]) -> Chosen:
        shards = [row for choice in choices for row in self._looked[choice.candidate][: choice.shards]]
        looked = {name: self._turns[name] for name in self._rows}
        heads = {name: turn.head.job_id for name, turn in looked.items()}
        rooms = {name: turn.room for name, turn in looked.items() if turn.room is not None}
        return Chosen(shards, self._rows, heads, rooms)
