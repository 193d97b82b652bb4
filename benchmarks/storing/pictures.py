"""Draws what layouts cost, and what reaches the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

LABELS = {"archive": "archive", "safetensors": "safetensors file a task", "zarr_groups": "Zarr group a task"}
PANELS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "files a task": lambda one: one["files"] / one["tasks"],
    "ms to write a task": lambda one: 1000 * one["write_seconds"] / one["tasks"],
    "ms to read one task": lambda one: one["one_task"]["median_ms"],
    "µs a task to read all": lambda one: 1e6 * one["all_tasks_seconds"] / one["tasks"],
}


def draw_layouts(layouts: Mapping[str, Any], path: Path) -> None:
    """A panel a cost, a bar a layout; logarithmic."""
    figure, panels = plt.subplots(1, len(PANELS), figsize=(11, 2.6), layout="constrained", sharey=True)
    names = [LABELS[name] for name in layouts]
    for axes, (title, cost) in zip(panels, PANELS.items(), strict=True):
        bars = axes.barh(names, [cost(one) for one in layouts.values()], color=["tab:blue", "tab:gray", "tab:gray"])
        axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        axes.set(title=title, xscale="log")
        axes.margins(x=0.35)
        axes.grid(alpha=0.3, axis="x")
    panels[0].invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
