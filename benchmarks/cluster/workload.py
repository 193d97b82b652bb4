"""A day of jobs: many users, few of them heavy, a rush at noon, small jobs beside huge ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

DAY = 86_400.0
SHARD_SECONDS = 30.0
"""Work of a full shard on one pilot."""
TOKENS_PER_SECOND = 20_000
LARGEST_JOB = 100 * 3600.0
GPUS = (1, 1, 1, 2, 1, 1, 4, 1, 1, 2, 1, 8)
"""GPUs of the models by popularity, repeated."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose pilots hold ``gpus`` and take ``load_seconds`` before the first pass."""

    name: str
    gpus: int
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """``shards`` of ``tokens`` each, submitted at ``submitted`` seconds of the day. Ids are in order of submission."""

    id: int
    user: str
    model: Model
    submitted: float
    tokens: int
    shards: int

    @property
    def seconds(self) -> float:
        """Work for one pilot, without the load."""
        return self.tokens * self.shards / TOKENS_PER_SECOND


@dataclass(frozen=True, slots=True)
class Workload:
    """What is drawn: the same numbers give the same day. ``load`` is the work asked for as a part of all GPUs."""

    gpus: int = 1000
    users: int = 10_000
    jobs: int = 40_000
    models: int = 24
    load: float = 0.85
    seed: int = 1

    def draw(self) -> list[Job]:
        """The jobs of the day in order of submission."""
        rng = np.random.default_rng(self.seed)
        models = [Model(f"model {n:02}", GPUS[n % 12], 45 * (1 + log2(GPUS[n % 12]))) for n in range(self.models)]
        popular = 1 / np.arange(1, self.models + 1)
        popular /= popular.sum()
        active = rng.lognormal(sigma=1.0, size=self.users)
        favourite = rng.choice(self.models, size=self.users, p=popular)
        user = rng.choice(self.users, size=self.jobs, p=active / active.sum())
        elsewhere = rng.random(self.jobs) < 0.3
        model = np.where(elsewhere, rng.choice(self.models, size=self.jobs, p=popular), favourite[user])
        gpus = np.array([models[n].gpus for n in model])
        seconds = self._work(rng, gpus)
        jobs = []
        for number, submitted in enumerate(self._times(rng)):
            shards = max(1, round(float(seconds[number]) / SHARD_SECONDS))
            tokens = max(1, int(seconds[number] * TOKENS_PER_SECOND / shards))
            name = f"user {user[number]:05}"
            jobs.append(Job(number, name, models[model[number]], float(submitted), tokens, shards))
        return jobs

    def _work(self, rng: np.random.Generator, gpus: NDArray[np.int_]) -> NDArray[np.float64]:
        """Seconds of each job on one pilot: lognormal, cut, and scaled to the load."""
        seconds = np.minimum(rng.lognormal(mean=4.0, sigma=2.5, size=self.jobs), LARGEST_JOB)
        scale = self.load * self.gpus * DAY / float((seconds * gpus).sum())
        scaled: NDArray[np.float64] = np.maximum(1.0, seconds * scale)
        return scaled

    def _times(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Seconds of the day, ascending; the rate is ``1 - 0.8 cos``, nine times as high at noon as at midnight."""
        grid = np.linspace(0, DAY, 10_001)
        passed = grid / DAY - 0.8 * np.sin(2 * np.pi * grid / DAY) / (2 * np.pi)
        times: NDArray[np.float64] = np.interp(np.sort(rng.random(self.jobs)), passed, grid)
        return times
