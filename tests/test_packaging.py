"""The package that users install is whole, development installs are repeatable, and the import contracts bite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
IGNORED = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that this tree builds."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def sources(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}


def test_the_wheel_holds_every_module_and_nothing_beside_the_package(wheel: zipfile.ZipFile) -> None:
    added = ("ndif_batch/queue/migrations/", "ndif_batch/catalogue/")
    packed = {name for name in wheel.namelist() if name.endswith(".py") and not name.startswith(added)}
    assert packed == {f"ndif_batch/{name}" for name in sources(ROOT / "ndif_batch")}
    assert {name.split("/")[0] for name in wheel.namelist()} == {"ndif_batch", "ndif_batch-0.1.0.dist-info"}


def test_the_wheel_holds_the_migrations_so_that_an_installed_package_can_make_its_database(
    wheel: zipfile.ZipFile,
) -> None:
    prefix = "ndif_batch/queue/migrations/"
    packed = {name.removeprefix(prefix) for name in wheel.namelist() if name.startswith(prefix)}
    assert packed >= {*sources(ROOT / "migrations"), "script.py.mako"}
    assert any(name.startswith("versions/0001") for name in packed)


def test_the_wheel_holds_the_catalogue_so_that_the_demo_runs_without_a_checkout(wheel: zipfile.ZipFile) -> None:
    files = [path for folder in ("jobs", "configs/sweeps") for path in (ROOT / folder).rglob("*") if path.is_file()]
    wanted = {f"ndif_batch/catalogue/{path.relative_to(ROOT)}" for path in files if path.suffix != ".pyc"}
    assert "ndif_batch/catalogue/configs/sweeps/ioi_patching.yaml" in wanted
    assert wanted <= set(wheel.namelist())


def test_the_wheel_holds_what_the_dashboard_shows_and_loads(wheel: zipfile.ZipFile) -> None:
    folder = ROOT / "ndif_batch" / "server" / "dashboard"
    files = [path for part in ("templates", "static") for path in (folder / part).rglob("*") if path.is_file()]
    assert len(files) > 20
    assert {str(path.relative_to(ROOT)) for path in files} <= set(wheel.namelist())


def test_the_wheel_says_that_it_is_typed_and_carries_its_licence(wheel: zipfile.ZipFile) -> None:
    assert "ndif_batch/py.typed" in wheel.namelist()
    licence = next(name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    text = wheel.read(licence).decode()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_wheel_names_its_console_script_and_leaves_the_torch_build_to_the_user(wheel: zipfile.ZipFile) -> None:
    info = "ndif_batch-0.1.0.dist-info"
    assert "ndif-batch = ndif_batch.cli.main:run" in wheel.read(f"{info}/entry_points.txt").decode()
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    required = [Requirement(text) for text in metadata.get_all("Requires-Dist") or []]
    assert [str(r.specifier) for r in required if r.name == "torch"] == [">=2.6"]


def test_every_direct_dependency_is_pinned_for_development_inside_its_range(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {r.name.lower(): r for r in map(Requirement, filter(lambda s: s and not s.startswith("#"), lines))}
    extras = project["project"]["optional-dependencies"].values()
    texts = [*project["project"]["dependencies"], *(text for extra in extras for text in extra)]
    direct = [r for r in map(Requirement, texts) if r.name != "ndif-batch"]
    for requirement in direct:
        pin = pins.get(requirement.name.lower())
        assert pin is not None, f"{requirement.name} has no line in constraints.txt"
        version = str(pin.specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{pin} is outside {requirement}"


def test_constraints_pin_torch_exactly_because_a_range_brings_a_cuda_build() -> None:
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in (ROOT / "benchmarks" / "peers.txt").read_text().splitlines()


def test_the_ci_script_can_be_run_and_parses() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


TRESPASSES = {
    "graph/nodes.py": ("import ndif_batch.engine.engine", "Imports go downwards only"),
    "client/plan.py": ("import torch", "torch and transformers have three doors"),
    "engine/pack.py": ("import sqlalchemy", "SQL has one door"),
    "sweep/task.py": ("def f() -> None:\n    import zarr", "Zarr has one door"),
    "scheduler/tick.py": ("import submitit", "submitit has one door"),
    "worker/loop.py": ("from rich.console import Console", "The terminal and plots have one door"),
    "client/handle.py": ("import httpx", "Requests have one door"),
    "scheduler/loop.py": ("import uvicorn", "The server's libraries have one door"),
    "trace/look.py": ("import nnsight", "nnsight has one door"),
    "client/prompts.py": ("import PIL", "Pillow has one door"),
    "trace/tree.py": ("import ndif_batch.graph.passes.dead", "Graph passes stand above the graph"),
}


def contracts(folder: Path) -> str:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_each_import_contract_is_broken_by_the_import_that_it_forbids(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ndif_batch", tmp_path / "ndif_batch", ignore=IGNORED)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for module, (line, _) in TRESPASSES.items():
        with (tmp_path / "ndif_batch" / module).open("a") as file:
            file.write(f"\n{line}\n")
    found = contracts(tmp_path)
    for _, contract in TRESPASSES.values():
        assert f"{contract} BROKEN" in found


def test_the_import_contracts_hold() -> None:
    assert f"Contracts: {len(TRESPASSES)} kept, 0 broken." in contracts(ROOT)
