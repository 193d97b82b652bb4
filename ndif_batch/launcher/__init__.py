"""Starts pilots, the processes that hold a model, and sees what became of them: here, on this host, on Slurm."""

from __future__ import annotations

import os
from pathlib import Path

from ndif_batch.errors import SettingsError, nearest
from ndif_batch.launcher.protocol import Launcher, Observed, PilotRequest, PilotState

__all__ = ["Launcher", "Observed", "PilotRequest", "PilotState", "open_launcher"]

KINDS = ("inline", "local", "slurm")


def open_launcher(kind: str, folder: Path, gpus: int = 1) -> Launcher:
    """The launcher of a kind; its pilots' folders lie in ``folder``, which every node must see.

    Local pilots share ``gpus`` of this host.

    Raises ``SettingsError`` for an unknown kind and ``NotAllowedError`` if others may write to ``folder``.
    """
    if kind == "inline":
        from ndif_batch.launcher.inline import InlineLauncher

        return InlineLauncher(folder)
    if kind == "local":
        from ndif_batch.launcher.devices import devices_of_host
        from ndif_batch.launcher.local import LocalLauncher

        return LocalLauncher(folder, devices=devices_of_host(os.environ, gpus))
    if kind == "slurm":
        from ndif_batch.launcher.slurm import SlurmLauncher

        return SlurmLauncher(folder)
    raise SettingsError(f"there is no launcher {kind!r}", hint=nearest(kind, KINDS))
