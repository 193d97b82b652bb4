"""Every method of the catalogue on nine families, the tasks of all methods together, against the oracle."""

from pathlib import Path

import pytest

from tests import families
from tests.catalogue import FAMILIES, METHODS, applied, cell

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
OFTEN = [(name, seed) for name in families.FAMILIES for seed in (1, 2)]


def test_every_method_of_the_catalogue_is_here() -> None:
    assert set(METHODS) == {path.stem for path in Path("jobs").glob("*.py")}


@pytest.mark.parametrize("name", FAMILIES)
def test_all_methods_together_equal_the_oracle_as_the_page_of_methods_says(name: str) -> None:
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    column = lines[0].index(name)
    told = {line[0]: line[column] for line in lines[1:]}
    found = {method: cell(reason) for method, reason in applied(name).items()}
    assert found == {method: told.get(method) for method in found}, "docs/methods.md is old: run `make docs`"


@pytest.mark.parametrize(("name", "seed"), OFTEN)
def test_further_tasks_of_all_methods_equal_the_oracle(name: str, seed: int) -> None:
    assert not any(applied(name, seed).values())
