"""Every method of the catalogue on nine families, the tasks of all methods together, against the oracle."""

from pathlib import Path

import pytest

from tests import families
from tests.catalogue import FAMILIES, METHODS, applied

CASES = [(name, seed) for name in FAMILIES for seed in range(3 if name in families.FAMILIES else 1)]


def test_every_method_of_the_catalogue_is_here() -> None:
    assert set(METHODS) == {path.stem for path in Path("jobs").glob("*.py")}


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_all_methods_together_equal_the_oracle(name: str, seed: int) -> None:
    assert list(applied(name, seed).values()).count("") > len(METHODS) - 5
