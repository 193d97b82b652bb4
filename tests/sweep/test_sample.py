"""The sample of a job: the same however its tasks come together, never empty, about as large as asked."""

from __future__ import annotations

import numpy as np
import pytest

from ndif_batch.sweep.sample import sample


@pytest.mark.parametrize("seed", [0, 7, -1])
def test_a_sample_does_not_depend_on_how_tasks_are_cut(seed: int) -> None:
    whole = sample(seed, 1000, 0.1, range(1000))
    for cut in (1, 7, 250):
        parts = [task for start in range(0, 1000, cut) for task in sample(seed, 1000, 0.1, range(start, start + cut))]
        assert sorted(task for task in parts if task < 1000) == sorted(whole)
    assert whole == sample(seed, 1000, 0.1, reversed(range(1000)))


def test_a_larger_sample_begins_with_the_smaller_one() -> None:
    small, large = (sample(3, 5000, fraction, range(5000)) for fraction in (0.01, 0.2))
    assert large[: len(small)] == small
    assert (30 <= len(small) <= 75, 900 <= len(large) <= 1100) == (True, True)
    assert sorted(sample(3, 40, 1.0, range(40))) == list(range(40))


def test_a_job_with_exceptions_has_a_task_in_its_sample_that_runs() -> None:
    excluded = np.ones(1000, dtype=np.bool_)
    excluded[[7, 500, 998]] = False
    found = {tuple(sample(seed, 1000, 1e-9, [7, 500, 998], excluded)) for seed in range(40)}
    assert found == {(7,), (500,), (998,)}


def test_every_job_has_at_least_one_task_in_its_sample_unless_it_wants_none() -> None:
    for seed in range(20):
        assert len(sample(seed, 12, 0.001, range(12))) == 1
    assert sample(0, 12, 0.0, range(12)) == []
    assert len({sample(seed, 12, 0.001, range(12))[0] for seed in range(20)}) > 5
