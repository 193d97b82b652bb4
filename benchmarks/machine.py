"""Where, when and on which commit a benchmark ran: a number without these is a rumour."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def describe(device: str) -> dict[str, str | int]:
    """The processor, its cores, the memory and the GPU if ``device`` is one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine: dict[str, str | int] = {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gib": round(memory / 2**30),
        "system": platform.platform(terse=True),
        "device": device,
    }
    if device != "cpu":
        import torch

        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def slug(machine: dict[str, str | int]) -> str:
    """A file name's part for a machine: its GPU, else its processor and cores."""
    name = str(machine["gpu"]) if "gpu" in machine else f"{machine['cpu']} {machine['cores']} cores"
    name = re.sub(r"\(R\)|\(TM\)|\bCPU\b|@.*?GHz|\bProcessor\b", "", name)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def provenance() -> dict[str, str | bool]:
    """Commit, whether the tree had changes, and the time in UTC.

    On a machine that has only a copy of the tree, ``COMMIT`` in the environment says which commit it is.
    """
    commit = os.environ.get("COMMIT") or _git("rev-parse", "HEAD")
    changed = "COMMIT" not in os.environ and bool(_git("status", "--porcelain", "--untracked-files=no"))
    return {"commit": commit, "changed": changed, "date": datetime.now(UTC).isoformat(timespec="seconds")}


def _git(*arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
