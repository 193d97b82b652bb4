"""A save is streamed to its file: writing and checking it take the memory of a few chunks, however large it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

StartChild = Callable[..., "Popen[str]"]
MIB = 2**20


@pytest.mark.parametrize("deed", ["write", "verify"])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_large_save_takes_no_memory_beside_its_value(
    deed: str, ragged: bool, tmp_path: Path, start_child: StartChild
) -> None:
    child = start_child("large", tmp_path / "7.zarr", deed, 96, int(ragged))
    output, errors = child.communicate()
    assert child.returncode == 0, errors
    found = json.loads(output)
    assert found["stored"] > 60 * MIB
    assert found["grown"] < 40 * MIB, found
