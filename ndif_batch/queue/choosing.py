"""Which shards a worker gets next: whose turn it is by the policy of :mod:`ndif_batch.scheduling`, and what is free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from ndif_batch.queue import free, states, turns
from ndif_batch.queue.database import Transaction
from ndif_batch.queue.turns import Turn
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
    half_life_hours: float
    holding: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """Ids of the shards to lease, in order; ``moved_on`` are users whose first waiting job is now another or none."""

    shards: list[int] = field(default_factory=list)
    moved_on: set[str] = field(default_factory=set)


def chosen(tx: Transaction, wanted: Wanted) -> Chosen:
    """The shards to lease, locked. Users are looked at only as far as the policy reaches them."""
    return _Search(tx, wanted).run()


class _Search:
    """``turns`` are the users found so far, ``heads`` stand for those not looked at, ``looked`` is what others have."""

    def __init__(self, tx: Transaction, wanted: Wanted) -> None:
        self._tx = tx
        self._wanted = wanted
        self._turns: dict[str, Turn] = {}
        self._heads: dict[str, Candidate] = {}
        self._looked: dict[Candidate, list[int]] = {}
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
        wanted = self._wanted
        found, self._whole = turns.first(
            self._tx, wanted.model, wanted.seconds_per_token, wanted.half_life_hours, limit
        )
        new = {turn.head.user: turn for turn in found if turn.head.user not in self._turns}
        self._turns |= new
        self._heads |= {name: turn.head for name, turn in new.items()}
        self._limit = limit

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
        """What of these users' shards can be had: candidates of equal shards, each with the ids."""
        self._rows |= {name: [] for name in names}
        for name in names:
            del self._heads[name]
        found: dict[tuple[str, int, int, bool], list[Row[Any]]] = {}
        for row in free.shards(self._tx, self._wanted.model, names, limit):
            self._rows[row.user].append(row)
            room = self._turns[row.user].room
            most = self._wanted.max_shards if room is None else min(room, self._wanted.max_shards)
            if len(self._rows[row.user]) <= most:
                kind = (row.user, row.job_id, row.tasks * row.tokens_per_task, states.suspect(row.deaths))
                found.setdefault(kind, []).append(row)
        for (name, _, tokens, alone), rows in found.items():
            candidate = self._candidate(rows[0], self._turns[name], tokens=tokens, shards=len(rows), alone=alone)
            self._looked[candidate] = [row.id for row in rows]

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
        ids = [shard_id for choice in choices for shard_id in self._looked[choice.candidate][: choice.shards]]
        taken = set(ids)
        moved_on = set()
        for name, rows in self._rows.items():
            rest = next((row.job_id for row in rows if row.id not in taken), None)
            if rest != self._turns[name].head.job_id:
                moved_on.add(name)
        return Chosen(ids, moved_on)
