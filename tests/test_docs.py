"""The documentation says what the code does: generated pages are current, links lead somewhere, examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ndif_batch import Client
from ndif_batch.cli.main import main
from ndif_batch.config import ClusterSettings, load_settings
from ndif_batch.queue.schema import upgrade

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
SWEEP = yaml.safe_load((ROOT / "configs" / "sweeps" / "ioi_patching.yaml").read_text())["parameters"]


def documents() -> list[Path]:
    folders = ("docs", "examples", "jobs", "benchmarks", "configs", "migrations", "tests")
    return sorted([*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*.md"))])


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(document: Path) -> None:
    targets = [target for target in LINK.findall(document.read_text()) if not target.startswith("http")]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_generated_pages_are_current(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(written) == ["cli.md", "openapi.json", "operations.md", "performance.md", "states.md"]
    for name, text in written.items():
        assert (ROOT / "docs" / name).read_text() == text, f"docs/{name} is old: run `make docs`"


@pytest.mark.parametrize("page", ["README.md", "docs/admin.md"])
def test_commands_and_options_in_the_pages_exist(page: str) -> None:
    reference = (ROOT / "docs" / "cli.md").read_text()
    sections = dict(re.findall(r"^##+ `ndif-batch ([a-z ]+)`\n(.*?)(?=^##+ `|\Z)", reference, re.DOTALL | re.MULTILINE))
    groups = {name.partition(" ")[0] for name in sections if " " in name}
    used = re.findall(r"(?<!/)ndif-batch ([a-z]+)(?: ([a-z]+))?([^`|\n#]*)", (ROOT / page).read_text())
    assert len(used) >= 5
    for first, second, rest in used:
        command = f"{first} {second}" if first in groups else first
        assert command in sections
        for option in re.findall(r"(?<= )--[a-z-]+", rest):
            assert f"{option} " in sections[command] or f"{option}`" in sections[command], f"{command} {option}"


def test_the_settings_that_the_administrators_page_explains_are_those_of_the_scheduler() -> None:
    table = (ROOT / "docs" / "admin.md").read_text().partition("| setting | meaning |")[2].partition("\n\n")[0]
    explained = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if row else "")
    }
    assert explained == set(ClusterSettings.model_fields)


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for path in documents() for target in re.findall(r"`?make ([a-z]+)`", path.read_text())}
    assert {"demo", "test", "setup"} <= targets
    assert named <= targets


def test_the_examples_about_users_of_the_administrators_page_set_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_BATCH_DATA_DIR", str(tmp_path))
    upgrade(load_settings().database)
    page = (ROOT / "docs" / "admin.md").read_text()
    for command in re.findall(r"^\$ ndif-batch (user [^#\n]*)", page, re.MULTILINE):
        assert main(command.split()) == 0
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    with Client() as client:
        users = {user.name: user for user in client.queue.users()}
        assert users["alice"].shares == 2
        assert users["bob"].quotas.running_shards == 64
        assert client.queue.settings() == {"half_life_hours": 48}


def test_the_python_example_of_the_readme_does_what_its_comments_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDIF_BATCH_DATA_DIR", str(tmp_path))
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code) == 1
    head, worker, _ = code[0].partition("with client.local_worker(")
    assert worker
    names: dict[str, Any] = {}
    exec(head.replace("\nt.run(", "\none = t.run("), names)
    assert float(names["one"]) == pytest.approx(5.328, abs=1e-3)
    assert names["prompts"] == {name: SWEEP[name] for name in ("clean", "corrupted", "answer", "distractor")}
    with names["client"] as client:
        assert [job.record.tasks for job in client.jobs()] == [30 * 17]
        assert client.settings.archive.is_relative_to(tmp_path / "demo")
