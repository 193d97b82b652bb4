"""Whatever is done to an installation, and whenever: nothing is lost, nothing is wrong, nothing is left."""

from __future__ import annotations

from pathlib import Path
from secrets import randbelow

import pytest

from tests.chaos.run import attack
from tests.chaos.world import Kind

pytestmark = pytest.mark.slow

FAULTS = 12
PAUSE_SECONDS = 0.3


@pytest.mark.parametrize("kind", [Kind("sqlite"), Kind("postgresql", http=True)], ids=str)
def test_an_attack_by_a_new_seed_loses_nothing(kind: Kind, tmp_path: Path) -> None:
    """`make chaos` does the same for longer; a seed that finds something is told by the name of the failure."""
    seed = randbelow(10**6)
    print(f"seed {seed}: python -m tests.chaos.run --kind {kind} --seed {seed}")
    outcome = attack(kind, seed, FAULTS, tmp_path, PAUSE_SECONDS)
    assert outcome.total >= FAULTS
    assert outcome.told["tasks"] > 0
