"""The command line starts at once, documents itself, and imports nothing heavy to do so."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
SECONDS = 0.3
HEAVY = ("torch", "transformers", "zarr", "sqlalchemy", "xarray", "pandas", "numpy", "pydantic", "matplotlib")
LISTS = ("ls", "show", "explain", "logs", "watch", "wait")
CHANGES = ("cancel", "hold", "release", "retry")
PARTS = ("graph", "model", "worker", "db", "config", "user", "token", "init", "doctor")
VERBS = ("demo", "submit", "sweep", "results", *PARTS, *LISTS, *CHANGES)
GROUPS = {
    "sweep": ["plan", "run"],
    "results": ["ls", "show", "get", "export", "verify"],
    "graph": ["show", "validate"],
    "model": ["add", "ls", "show"],
    "worker": ["run"],
    "db": ["upgrade", "check"],
    "config": ["show"],
    "user": ["create", "ls", "set", "revoke"],
    "token": ["create", "ls", "revoke"],
}


def child_seconds(code: str) -> float:
    """Processor seconds of a Python process that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ndif_batch.cli.main import main\nmain(['--help'])\n"
        f"print('HEAVY', *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "HEAVY\n"


def test_help_is_there_within_a_third_of_a_second() -> None:
    """Processor time, the best of a few; a busy machine gets as much more as it needs for Typer alone."""
    ours = "from ndif_batch.cli.main import main\nmain(['--help'])"
    floor = "import typer, typer.rich_utils"
    nominal = 0.13
    busy = max(1.0, min(child_seconds(floor) for _ in range(4)) / nominal)
    assert min(child_seconds(ours) for _ in range(4)) < SECONDS * busy


def test_every_verb_is_there_and_explains_itself(run: Run) -> None:
    top = run("--help")
    assert top.code == 0
    for verb in VERBS:
        assert re.search(rf"│ {verb} ", top.out), verb
        found = run(verb, "--help")
        assert (found.code, found.err) == (0, "")
        for inner in GROUPS.get(verb, ()):
            assert re.search(rf"│ {inner} ", found.out), (verb, inner)
            assert run(verb, inner, "--help").code == 0


def test_the_version_is_said(run: Run) -> None:
    assert re.fullmatch(r"ndif-batch \d+\.\d+\.\d+\n", run("--version").out)


@pytest.mark.parametrize("arguments", [("db", "upgrade"), ("config", "show"), ("db", "check")])
def test_small_verbs_stay_clear_of_model_frameworks(arguments: tuple[str, ...], settled: Path) -> None:
    code = (
        "import sys\nfrom ndif_batch.cli.main import main\n"
        f"main({list(arguments)!r})\n"
        "print('HEAVY', *[name for name in ('torch', 'transformers', 'zarr') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY"
