"""The package's names: complete, sorted, and cheap to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ndif_batch
from ndif_batch import errors


def test_every_public_name_can_be_imported() -> None:
    found = {name: getattr(ndif_batch, name) for name in ndif_batch.__all__}
    assert found["UsageError"] is errors.UsageError
    assert {found[name].__name__ for name in ("Client", "LanguageModel", "Settings")} == {
        "Client",
        "LanguageModel",
        "Settings",
    }
    assert callable(found["param"])


def test_public_names_are_sorted_and_hold_every_error() -> None:
    assert ndif_batch.__all__ == sorted(ndif_batch.__all__)
    every = {name for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, Exception)}
    assert every <= set(ndif_batch.__all__)
    assert set(ndif_batch.__all__) <= set(dir(ndif_batch))


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clent"):
        ndif_batch.Clent  # noqa: B018


@pytest.mark.parametrize(
    "statement", ["import ndif_batch", "from ndif_batch import Client, LanguageModel, param, Settings, UsageError"]
)
def test_importing_brings_in_nothing_heavy(statement: str) -> None:
    heavy = ("torch", "transformers", "zarr", "xarray", "sqlalchemy", "pandas")
    code = f"{statement}; import sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
