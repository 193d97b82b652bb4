"""Draws what a simulated day came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from cluster.record import BIN, HOUR, Record

COLOURS = ("tab:blue", "tab:orange", "tab:gray")
END_HOURS = 28


def draw(records: Mapping[str, Record], folder: Path) -> None:
    """Writes ``cluster_utilisation.png``, ``cluster_wait.png`` and ``cluster_fairness.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (("utilisation", _utilisation), ("wait", _wait), ("fairness", _fairness)):
        figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
        for (label, record), colour in zip(records.items(), COLOURS, strict=True):
            picture(axes, record, label, colour)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(folder / f"cluster_{name}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


def _utilisation(axes: Axes, record: Record, label: str, colour: str) -> None:
    bins = np.arange(int(END_HOURS * HOUR / BIN))
    whole = record.gpus * BIN
    hours = (bins + 0.5) * BIN / HOUR
    axes.plot(hours, [record.worked.get(int(n), 0.0) / whole for n in bins], color=colour, label=f"{label}: at work")
    axes.plot(hours, [record.held.get(int(n), 0.0) / whole for n in bins], color=colour, linestyle=":", label="held")
    axes.set(xlabel="hours since midnight", ylabel="part of all GPUs", xlim=(0, END_HOURS), ylim=(0, 1.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _wait(axes: Axes, record: Record, label: str, colour: str) -> None:
    waits = np.sort(np.array(list(record.wait_by_user().values())))
    axes.plot(np.maximum(waits, 1), np.arange(1, len(waits) + 1) / len(waits), color=colour, label=label)
    axes.set(xscale="log", xlabel="median wait of a user's jobs, seconds", ylabel="part of the users", ylim=(0, 1.01))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _fairness(axes: Axes, record: Record, label: str, colour: str) -> None:
    hours = record.fairness()
    axes.plot([hour + 0.5 for hour in hours], [index for index, _ in hours.values()], ".-", color=colour, label=label)
    axes.set(xlabel="hours since midnight", ylabel="Jain's index of an hour", xlim=(0, END_HOURS), ylim=(0, 1.01))
