"""Draws how the engine's time grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np


def draw_scaling(report: Mapping[str, Any], path: Path) -> None:
    """A panel a series: the medians with lowest and highest, and the straight line."""
    figure, panels = plt.subplots(1, len(report["series"]), figsize=(10, 3.4), layout="constrained")
    for axes, (name, series) in zip(np.atleast_1d(panels), report["series"].items(), strict=True):
        sizes, seconds = np.array(series["sizes"]), np.array(series["seconds"])
        spread = [seconds - np.array(series["low"]), np.array(series["high"]) - seconds]
        along = np.geomspace(sizes.min(), sizes.max(), 200)
        axes.plot(along, series["intercept"] + series["slope"] * along, color="tab:gray", label="straight line")
        axes.errorbar(sizes, seconds, yerr=spread, fmt="o", markersize=4, color="tab:blue", label="measured")
        axes.set(xlabel=name, ylabel="seconds", xscale="log", yscale="log")
        axes.set_title(f"at most {series['deviation']:.0%} off the line", fontsize=10)
        axes.grid(alpha=0.3)
    np.atleast_1d(panels)[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
