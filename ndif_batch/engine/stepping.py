"""How far tasks have come with what they generate: what each has seen, the tokens that it chose, where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import torch

from ndif_batch.engine.cache import Past
from ndif_batch.engine.choosing import drawn, generator_of, likeliest
from ndif_batch.engine.given import Prompted
from ndif_batch.engine.program import Program
from ndif_batch.engine.schedule import before
from ndif_batch.engine.tasks import Member
from ndif_batch.engine.values import Each, mapped, of_task, varies
from ndif_batch.graph.steps import Choice

Beginning: TypeAlias = "Prompted | Next"
"""What a run begins with: the tokens of a prompt, or its tensors, or one token after what was seen before."""


class _Absent:
    """Stands for the value of a step that was never taken."""


ABSENT: Final = _Absent()


def taken(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the steps have given that were taken."""
    return tuple([part for part in parts if part is not ABSENT])


class Next(NamedTuple):
    """A token that was chosen after a past."""

    past: Past
    token: int


def tokens_of(beginning: Beginning) -> Prompted:
    """The tokens, or tensors, that a run begins with."""
    return (beginning.token,) if isinstance(beginning, Next) else beginning


@dataclass
class Steps:
    """The steps of tasks of one program, which are known by their places.

    ``pasts`` has for each run that goes on what each task has seen, ``chosen`` and ``stops`` by node the token of each
    and those after which it takes no further step. ``over`` are the runs of steps that are not taken.
    """

    program: Program
    pasts: dict[int, list[Past]] = field(default_factory=dict)
    chosen: dict[int, list[int]] = field(default_factory=dict)
    stops: dict[int, list[frozenset[int]]] = field(default_factory=dict)
    over: frozenset[int] = frozenset()

    def of(self, places: Sequence[int]) -> Steps:
        """Those of some of the tasks."""
        return Steps(
            self.program,
            {run: [pasts[place] for place in places] for run, pasts in self.pasts.items()},
            {i: [tokens[place] for place in places] for i, tokens in self.chosen.items()},
            {i: [stops[place] for place in places] for i, stops in self.stops.items()},
            self.over,
        )

    def beginnings(self, run: int) -> list[Next] | None:
        """What a run of each task begins with if it begins with a token."""
        choice = before(self.program.graph, run)
        if choice is None:
            return None
        parent = self.program.graph.nodes[choice].run
        assert parent is not None
        return list(map(Next, self.pasts[parent], self.chosen[choice]))

    def choose(self, i: int, value: Any, stop: Any, tasks: int) -> None:
        """Node ``i`` has chosen a token for each task."""
        self.chosen[i] = _tokens(value, tasks)
        self.stops[i] = [_ids(of_task(stop, place)) for place in range(tasks)] if varies(stop) else [_ids(stop)] * tasks

    def assume(self, i: int, tasks: int) -> None:
        """The same if nothing is computed: each task has the same token, and goes on."""
        self.chosen[i] = [0] * tasks
        self.stops[i] = [frozenset()] * tasks

    def stopped(self, run: int) -> list[int] | None:
        """The tasks that take no step after one of their runs; ``None`` if it has no further one."""
        choice = self.program.choices[run]
        stops = self.stops.pop(choice, None)
        if stops is None or choice not in self.program.following:
            return None
        return [place for place, token in enumerate(self.chosen[choice]) if token in stops[place]]

    def end(self, run: int) -> None:
        """No step is taken after one of the runs."""
        found, following = set(self.over), self._following(run)
        while following is not None:
            found.add(following)
            following = self._following(following)
        self.over = frozenset(found)

    def go_on(self, run: int, pasts: Sequence[Past]) -> None:
        """After one of the runs a step follows, before which each task has seen so much."""
        self.pasts[run] = list(pasts)
        earlier = before(self.program.graph, run)
        if earlier is not None:
            self.pasts.pop(self.program.graph.nodes[earlier].run or 0, None)
            self.chosen.pop(earlier, None)

    def _following(self, run: int) -> int | None:
        return self.program.following.get(self.program.choices.get(run, -1))


def likeliest_of_each(logits: Any) -> Any:
    """The likeliest next token of every task."""
    return Each(likeliest(logits.stacked)) if isinstance(logits, Each) else likeliest(logits)


def drawn_alone(logits: Any, given: Mapping[str, Any], place: int, member: Member, node: int, step: int) -> Any:
    """The next token of the task at ``place``, drawn with its own random numbers."""
    choice = Choice(**{name: of_task(value, place) for name, value in given.items()})
    choice.check()
    return drawn(of_task(logits, place), choice, generator_of(member.seed, node, step))


def on_device(value: Any, device: torch.device) -> Any:
    """A value with its tensors on a device."""

    def leaf(one: Any) -> Any:
        if isinstance(one, Each):
            return Each(one.stacked.to(device))
        return one.to(device) if isinstance(one, torch.Tensor) else one

    return mapped(value, leaf)


def _tokens(value: Any, tasks: int) -> list[int]:
    if isinstance(value, torch.Tensor):
        return [int(token) for token in value.tolist()] * tasks
    return [int(token) for (token,) in value.stacked.tolist()]


def _ids(stop: Any) -> frozenset[int]:
    return frozenset() if stop is None else frozenset(stop if isinstance(stop, tuple) else (stop,))
