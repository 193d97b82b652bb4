"""A command line against a queue of its own that knows the toy model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest
import structlog

from ndif_batch.cli.main import main
from ndif_batch.client import Client
from tests import toy


@dataclass(frozen=True, slots=True)
class Ran:
    """One command line: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Ran]

JOB = '''"""Reads one vector."""

from ndif_batch import param


def build(lm):
    with lm.trace(param("prompt")) as t:
        hidden = lm.model.layers[param("layer")].output[0, param("position")]
        hidden.save("residual")
        lm.lm_head.output[0, -1, param("answer")].save("logit")
    return t
'''

SWEEP = """version: 1
name: reading
model: toy
job: job.py
parameters:
  layer: {range: [0, 4]}
  position: {range: [0, 3]}
  prompt: the cat sat
  answer: Paris
"""


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of an empty data directory, which is the working directory too."""
    for name, value in {"DATA_DIR": tmp_path, "MODEL_CACHE": tmp_path / "models", "USER": "ada"}.items():
        monkeypatch.setenv(f"NDIF_BATCH_{name}", str(value))
    monkeypatch.setenv("NDIF_BATCH_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NDIF_BATCH_DATABASE_URL", raising=False)
    monkeypatch.delenv("NDIF_BATCH_ARCHIVE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(settled: Path) -> Path:
    """The working directory with a job and a sweep."""
    (settled / "job.py").write_text(JOB)
    (settled / "sweep.yaml").write_text(SWEEP)
    return settled


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    """The queue that the command line uses."""
    with toy.client(folder) as made:
        yield made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], settled: Path) -> Iterator[Run]:
    """Carries out one command line in this process."""

    def carry_out(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    yield carry_out
    structlog.reset_defaults()
