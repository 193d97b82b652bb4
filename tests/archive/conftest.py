from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

import ndif_batch
from ndif_batch.archive import Results, create
from tests.archive.archive_example import example_spec, write_all

CHILD = Path(__file__).with_name("archive_child.py")
StartChild: TypeAlias = "Callable[..., subprocess.Popen[str]]"


@pytest.fixture
def written(tmp_path: Path) -> Results:
    """The example's archive, every tile written, task 4 failed, not finished."""
    path = tmp_path / "7.zarr"
    spec = example_spec(job=7)
    create(path, spec)
    write_all(path, spec)
    return Results(path)


@pytest.fixture
def start_child() -> StartChild:
    """Starts ``archive_child.py`` with arguments; its output is text."""
    root = Path(ndif_batch.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(CHILD.parent)])}

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", str(CHILD), *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start
