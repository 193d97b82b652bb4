"""The processes of local pilots, found by their command lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ndif_batch.launcher.detached import CONTROLLER, TASK


@dataclass(frozen=True, slots=True)
class PilotProcess:
    """A controller or a pilot proper; its command line ends with the pilot's folder."""

    pid: int
    module: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """The variables it was started with; ``OSError`` if it has ended or is another user's."""
        text = os.fsdecode(Path(f"/proc/{self.pid}/environ").read_bytes())
        return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


def pilot_processes() -> Iterator[PilotProcess]:
    """All that run now on this host."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (found := _pilot_of(entry)) is not None:
            yield found


def _pilot_of(entry: Path) -> PilotProcess | None:
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    if len(words) < 3 or os.fsdecode(words[-3]) not in (CONTROLLER, TASK):
        return None
    return PilotProcess(int(entry.name), os.fsdecode(words[-3]), Path(os.fsdecode(words[-2])))
