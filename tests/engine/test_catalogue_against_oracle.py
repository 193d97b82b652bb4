"""Every method of the catalogue on nine families, the tasks of all methods together, against the oracle."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from ndif_batch.engine.engine import Engine
from ndif_batch.engine.model import wrap
from tests import families
from tests.catalogue import FAMILIES, METHODS, applied, cell, tasks_of

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


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_method_runs_in_half_precision_with_tensors_in_single(name: str) -> None:
    model: Any = families.random_subject(name, **families.ALL[name]).native
    half = families.Subject(wrap(model.to(torch.bfloat16)), model)
    constants: dict[str, Any] = {}
    tasks, reasons = tasks_of(half, random.Random(name), constants)
    assert not reasons
    for outcome in Engine(half.loaded).run([task for _, task in tasks], constants=constants):
        assert outcome.error is None, (tasks[outcome.index][0], outcome.error)
        assert all(value.isfinite().all() for value in outcome.saves.values()), tasks[outcome.index][0]
