"""Thirty-four families of models: random co-batches equal the oracle, and each has the layout that it can have."""

from pathlib import Path

import pytest

from ndif_batch.engine.layout import Arrangement
from tests.families import ALL, ENCODERS, family
from tests.measured import measured

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
IN_ROWS = {"gptj", "gpt_neo", "bloom", "falcon", "mamba", "roberta"}


@pytest.mark.parametrize("name", ALL)
def test_random_co_batches_equal_the_oracle(name: str) -> None:
    assert measured(name).saves >= 40


@pytest.mark.parametrize("name", ALL)
def test_a_family_keeps_the_layout_that_it_can_have(name: str) -> None:
    layout = family(name).loaded.layout
    assert layout.arrangement is (Arrangement.ROWS if name in IN_ROWS else Arrangement.PACKED), layout
    if layout.packed:
        assert len(layout.blocks) == 3
        assert layout.last is not None
        assert layout.moments.causal is (name not in ENCODERS)
        assert not layout.alone


@pytest.mark.parametrize("name", ALL)
def test_the_page_of_families_is_current(name: str) -> None:
    lines = [line.strip("|").split("|") for line in PAGE.read_text().splitlines()]
    rows = {tuple(cell.strip() for cell in cells[:7]) for cells in lines}
    assert measured(name).stable in rows, "docs/families.md is old: run `make docs`"
