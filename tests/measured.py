"""What each tiny family is to the engine: its layout, and how far random co-batches are from the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from ndif_batch.engine.engine import Engine, LayoutChoice
from ndif_batch.engine.layout import Layout
from ndif_batch.sweep.task import Task
from tests.families import Subject, family
from tests.graphs import random_sweep, random_task
from tests.oracle import assert_equal, deviation, oracle

LAYOUTS: tuple[LayoutChoice, ...] = ("auto", "solo")
GRAPHS, SWEEPS, POINTS = 16, 5, 4


@dataclass(frozen=True, slots=True)
class Measured:
    """A row of docs/families.md. ``saves`` were compared with the oracle; ``deviation`` is the largest of them all."""

    family: str
    model_class: str
    layout: str
    branches: str
    reason: str
    sites: int
    refused: int
    saves: int
    deviation: float

    @property
    def stable(self) -> tuple[str, ...]:
        """The cells that do not depend on the machine."""
        beside = (self.layout, self.branches, self.reason, str(self.sites), str(self.refused))
        return self.family, f"`{self.model_class}`", *beside


@cache
def measured(name: str) -> Measured:
    """Runs random co-batches of a family in every layout and compares what they save; ``AssertionError`` if wrong."""
    subject = family(name)
    found = list(_deviations(subject))
    sites = subject.loaded.sites.sites.values()
    refused = sum(site.refused is not None for site in sites)
    return Measured(
        family=name,
        model_class=type(subject.native).__name__,
        layout=str(subject.loaded.layout.arrangement),
        branches=_branches(subject.loaded.layout),
        reason=subject.loaded.layout.reason or "",
        sites=len(sites) - refused,
        refused=refused,
        saves=len(found),
        deviation=max(found),
    )


def _branches(layout: Layout) -> str:
    if not layout.blocks:
        return "none"
    return "at layers and positions" if layout.moments.causal else "at layers"


def _tasks(subject: Subject) -> list[Task]:
    sites = subject.loaded.sites
    sweeps = [random_sweep(seed, sites, POINTS) for seed in range(SWEEPS)]
    return [*(random_task(seed, sites) for seed in range(GRAPHS)), *(task for sweep in sweeps for task in sweep)]


def _deviations(subject: Subject) -> Iterator[float]:
    tasks = _tasks(subject)
    together, alone = (
        {outcome.index: outcome for outcome in Engine(subject.loaded).run(tasks, layout=layout)} for layout in LAYOUTS
    )
    for index, task in enumerate(tasks):
        try:
            truth = oracle(subject, task)
        except (IndexError, RuntimeError, ValueError):
            continue  # a point of a sweep that is wrong
        for outcome in (together[index], alone[index]):
            assert outcome.error is None, (task, outcome.error)
            assert outcome.saves.keys() == truth.keys()
            for save, value in truth.items():
                assert_equal(f"{task}, {save}", outcome.saves[save], value)
                yield deviation(outcome.saves[save], value)
