"""What a sweep's passes compute, planned for a sample of many tasks."""

import time
from dataclasses import replace
from pathlib import Path

from ndif_batch.client.forecast import PLANNED_TASKS, forecast
from ndif_batch.client.plan import prepare
from ndif_batch.engine.forecast import ALONE, POSITIONS
from ndif_batch.sweep.space import Axis, Space
from tests import toy


def test_a_million_tasks_are_planned_from_a_sample_in_two_seconds(tmp_path: Path) -> None:
    axes = (Axis("layer", {"layer": range(4)}), Axis("position", {"position": range(3)}))
    space = Space((*axes, Axis("seed", {"seed": range(100_000)})), {"prompt": "the cat sat", "answer": "Paris"})
    info = toy.entry(tmp_path)
    plan = prepare(toy.reading(), space, info, {}, tmp_path)
    whole = prepare(toy.reading(), Space(axes, space.constants), info, {}, tmp_path)
    assert forecast(whole, None).planned_tasks == 12
    started = time.process_time()
    found = forecast(plan, None)
    assert time.process_time() - started < 2
    assert found.planned_tasks <= PLANNED_TASKS
    assert found.efforts[ALONE].passes == plan.tasks == 1_200_000
    assert found.efforts[ALONE].token_blocks == 3 * 4 * plan.tasks
    assert 0 < found.efforts[POSITIONS].token_blocks < found.efforts[ALONE].token_blocks / 1000
    assert replace(found, efforts={}) == replace(forecast(plan, None), efforts={})
