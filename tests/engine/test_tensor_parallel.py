"""A model whose weights are split over processes gives what it gives in one; what goes wrong in one, all agree on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from ndif_batch.engine.processes import environments
from ndif_batch.engine.ranks import LOST
from tests.engine.together import CASES, a_rank_that_is_gone_ends_the_others

SECONDS = 100
GONE = a_rank_that_is_gone_ends_the_others.__name__
TOGETHER = [name for name in CASES if name != GONE]


def run(output: Path, *cases: str) -> list[int]:
    """What two ranks end with; both are ended after a while."""
    command = [sys.executable, "-m", "tests.engine.together", str(output), *cases]
    before = os.environ if torch.cuda.is_available() else os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    ranks = [subprocess.Popen(command, env={**before, **own}) for own in environments(2)]
    try:
        for rank in ranks:
            with suppress(subprocess.TimeoutExpired):
                rank.wait(SECONDS)
    finally:
        for rank in ranks:
            rank.kill()
    return [rank.wait() for rank in ranks]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What is wrong with each case: two processes run all of them, since starting them is what takes time."""
    output = tmp_path_factory.mktemp("together") / "wrong.json"
    assert run(output, *TOGETHER) == [0, 0]
    found: dict[str, str | None] = json.loads(output.read_text())
    return found


@pytest.mark.parametrize("case", TOGETHER)
def test_a_split_model_is_as_one_in_one_piece(case: str, wrong: dict[str, str | None]) -> None:
    assert wrong[case] is None, wrong[case]


def test_a_rank_that_is_gone_ends_the_others(tmp_path: Path) -> None:
    """Nobody waits for ever for one that will not come."""
    first, second = run(tmp_path / "wrong.json", GONE)
    assert second == 3
    assert first in (1, LOST) or "came to an end" not in (tmp_path / "wrong.json").read_text()
