"""The administrators' page is followed command by command, on a real Slurm and PostgreSQL, up to a restored backup."""

from __future__ import annotations

import getpass
import grp
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ndif_batch.config import load_settings
from ndif_batch.models import demo
from tests.afterwards import DIES_WITH_US
from tests.devcluster import ROOT, DevCluster
from tests.queue import postgres
from tests.waiting import until

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/admin.md").read_text()
PROFILE, UNIT = "slurm/profiles/slurm.toml", "slurm/systemd/ndif-batch-scheduler.service"
CHAPTERS = ("Install", "Upgrade", "Backup and restore")
ELSEWHERE = ("git ", "python3.11 -m venv", "/SHARED/ndif-batch/venv/bin/pip", "systemctl daemon-reload")
"""Beginnings of commands that need a network or systemd: how this version came here is another test's matter."""


def commands(chapter: str) -> list[str]:
    """What a chapter has its reader type, in order, without the remarks."""
    text = re.split(r"^## ", PAGE.partition(f"\n## {chapter}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^ *```console\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip()[2:].partition("   #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if not line.startswith(ELSEWHERE)]


@dataclass
class Administrator:
    """Types commands where the page's capitals are real; systemd's part is this object's."""

    folder: Path
    words: dict[str, str]
    scheduler: subprocess.Popen[bytes] | None = None

    def real(self, text: str) -> str:
        """The text with what is the site's own in place of what the page says."""
        for word, mine in self.words.items():
            text = text.replace(word, mine)
        return text

    def types(self, command: str) -> str:
        """What a command prints; fails with what it says."""
        if command.startswith("systemctl "):
            self.stop() if " stop " in command else self.start()
            return ""
        done = subprocess.run(
            ["bash", "-c", self.real(command)], capture_output=True, text=True, timeout=60, cwd=self.folder
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self) -> None:
        (line,) = re.findall(r"^ExecStart=(.*)$", (ROOT / UNIT).read_text(), re.MULTILINE)
        command = [*DIES_WITH_US, *shlex.split(self.real(line))]
        with (self.folder / "scheduler.log").open("ab") as log:
            self.scheduler = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")

    def stop(self) -> None:
        if self.scheduler is not None:
            self.scheduler.terminate()
            assert self.scheduler.wait(30) in (0, -signal.SIGTERM), "systemd takes both for a clean end"
            self.scheduler = None


@pytest.fixture
def administrator(slurm: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Administrator]:
    """One who has changed in the profile what is written in capitals."""
    cache, me = load_settings().model_cache, getpass.getuser()
    shared, program = tmp_path / "shared", f"{sys.executable} -m ndif_batch.cli.main"
    with postgres.server("fsync=off") as url:
        socket = url.partition("host=")[2]
        mine = Administrator(
            tmp_path,
            {
                "/SHARED/ndif-batch/models": str(cache),
                "/SHARED/ndif-batch/venv/bin/ndif-batch": program,
                "/SHARED": str(shared),
                "@DB.EXAMPLE.ORG/ndif_batch": f"@/ndif_batch?host={socket}",
                "DB.EXAMPLE.ORG": socket,
                "HuggingFaceTB/SmolLM2-135M-Instruct": str(demo.fetch(cache)),
                "-o ndif -g ndif-users": f"-o {me} -g {grp.getgrgid(os.getegid()).gr_name}",
                "--user=ndif": f"--user={me}",
                "sudo -u postgres ": f"env PGUSER=postgres PGHOST={socket} ",
                " --pwprompt": "",
                "--partition=GPU": "--partition=main",
                "configs/sweeps": str(ROOT / "configs/sweeps"),
            },
        )
        of_the_site = {'"GPU"': '"main"', "GPU = 16": "main = 2", "cpus_per_task = 8": "cpus_per_task = 1"}
        of_the_site |= {
            "mem_gb = 64": "mem_gb = 1",
            'slurm_account = "ACCOUNT"\n': "",
            "gpus = 16 ": "tick_seconds = 0.3\ngpus = 2 ",
        }
        profile = mine.real((ROOT / PROFILE).read_text().partition("\n# A model that needs")[0])
        for word, value in of_the_site.items():
            assert word in profile
            profile = profile.replace(word, value)
        (tmp_path / "config.toml").write_text(profile)
        (tmp_path / "ndif-batch").write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (tmp_path / "ndif-batch").chmod(0o755)
        variables: dict[str, str | Path] = {
            "NDIF_BATCH_CONFIG": tmp_path / "config.toml",
            "SLURM_CONF": slurm.conf,
            "PYTHONPATH": ROOT,
        }
        for name, place in variables.items():
            monkeypatch.setenv(name, str(place))
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        try:
            yield mine
        finally:
            mine.stop()
            slurm.slurm("scancel", f"--user={me}")
            until(lambda: not slurm.slurm("squeue", "--noheader"), "the end of the pilots")


def test_a_site_is_installed_upgraded_and_restored_as_the_page_says(administrator: Administrator) -> None:
    said = {command: administrator.types(command) for chapter in CHAPTERS for command in commands(chapter)}
    assert "is at schema" in said["ndif-batch db check"]
    assert "logit_diff of ioi-patching (1)" in said["ndif-batch results show 1"]
    assert administrator.types("ndif-batch results show 1") == said["ndif-batch results show 1"]
    assert "every file is as it was written" in administrator.types("ndif-batch results verify 1")
    assert administrator.types("ndif-batch ls --output jsonl").count("COMPLETED") == 1
    administrator.types(re.findall(r"^\$ (find /SHARED.*)$", PAGE, re.MULTILINE)[0])
