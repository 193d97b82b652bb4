"""What rank 0 tells the others to do, batch by batch, and how they do it: it alone decides, they carry out the same."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import torch

from ndif_batch.engine.batches import Need, Prepared
from ndif_batch.engine.memory import Live
from ndif_batch.engine.program import Program
from ndif_batch.engine.routes import Route
from ndif_batch.engine.tasks import Member

if TYPE_CHECKING:
    from ndif_batch.engine.loaded import LoadedModel


NOTHING_NEEDED = Need(0, frozenset(), 0, Live())
_calls = count()


@dataclass(frozen=True, slots=True)
class Order:
    """One batch of a call of the engine: tasks by the number of their program; programs and constants that are new."""

    call: int
    programs: Mapping[int, tuple[Program, Sequence[Route]]]
    constants: Mapping[str, torch.Tensor]
    tasks: Sequence[tuple[int, Member]]
    borrows: bool
    beside: bool
    refuse_nan: bool
    over: Sequence[int] = ()


@dataclass(slots=True)
class Orders:
    """What rank 0 has told of one call. ``over`` are calls that have ended since the last order."""

    model: LoadedModel
    routes: Mapping[int, Sequence[Route]]
    constants: Mapping[str, torch.Tensor]
    beside: bool
    refuse_nan: bool
    over: list[int]
    call: int = field(default_factory=lambda: next(_calls))
    _programs: dict[int, int] = field(default_factory=dict)
    _constants: set[str] = field(default_factory=set)

    def give(self, batch: Sequence[Prepared]) -> None:
        """Tells the others to run a batch."""
        assert self.model.split is not None
        programs = {}
        for task in batch:
            if id(task.program) not in self._programs:
                number = self._programs[id(task.program)] = len(self._programs)
                programs[number] = (task.program, self.routes[id(task.program)])
        constants = {digest: self.constants[digest] for digest in self.constants if digest not in self._constants}
        self._constants.update(constants)
        order = Order(
            call=self.call,
            programs=programs,
            constants=constants,
            tasks=[(self._programs[id(task.program)], task.member) for task in batch],
            borrows=self.model.layout.moments.causal,
            beside=self.beside,
            refuse_nan=self.refuse_nan,
            over=tuple(self.over),
        )
        self.over.clear()
        self.model.split.ranks.said(order)


@dataclass(slots=True)
class _Call:
    """What one that follows knows of a call."""

    programs: dict[int, Program] = field(default_factory=dict)
    routes: dict[int, Sequence[Route]] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)

    def learn(self, order: Order) -> None:
        self.constants.update(order.constants)
        for number, (program, routes) in order.programs.items():
            self.programs[number] = program
            self.routes[id(program)] = routes


def lead(model: LoadedModel) -> None:
    """From now on this rank's engine tells the others what to run."""
    assert model.split is not None
    model.split.ranks.leads = model.split.ranks.running = True


def dismiss(model: LoadedModel) -> None:
    """Lets the others go."""
    assert model.split is not None
    if model.split.ranks.leads:
        model.split.ranks.leads = model.split.ranks.running = False
        model.split.ranks.said(None)


def follow(model: LoadedModel) -> None:
    """Carries out what rank 0 says until it lets this one go."""
    from ndif_batch.engine.engine import Engine

    assert model.split is not None
    ranks = model.split.ranks
    ranks.running = True
    engines: dict[tuple[bool, bool], Engine] = {}
    calls: dict[int, _Call] = {}
    gc.freeze()
    while (order := ranks.said()) is not None:
        kind = (order.borrows, order.beside)
        if kind not in engines:
            own = model if order.borrows == model.layout.moments.causal else model.without_borrowing()
            engines[kind] = Engine(own, beside=order.beside)
        call = calls.setdefault(order.call, _Call())
        call.learn(order)
        tasks = [Prepared(call.programs[n], member, False, NOTHING_NEEDED) for n, member in order.tasks]
        engines[kind].follow(tasks, call.routes, call.constants, refuse_nan=order.refuse_nan)
        for ended in order.over:
            calls.pop(ended, None)
    ranks.running = False
