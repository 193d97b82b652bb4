"""The names of settings by which administrators pause models and keep pilots of them. No SQL here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAUSE, PIN, LOAD = "pause", "pin", "load"


def pause_name(model: str | None) -> str:
    """The setting that pauses ``model``, or everything."""
    return PAUSE if model is None else f"{PAUSE}:{model}"


def pin_name(model: str) -> str:
    """The setting of how many pilots of ``model`` are kept without work."""
    return f"{PIN}:{model}"


def load_name(model: str) -> str:
    """The setting that asks for a pilot of ``model``, until one has loaded it."""
    return f"{LOAD}:{model}"


def paused(settings: Mapping[str, Any], model: str) -> bool:
    """Whether nothing of ``model`` is leased."""
    return bool(settings.get(PAUSE) or settings.get(pause_name(model)))


def pinned(settings: Mapping[str, Any]) -> dict[str, int]:
    """How many pilots of each model are kept without work."""
    return {name.partition(":")[2]: int(value) for name, value in settings.items() if name.startswith("pin:") and value}


def wanted_now(settings: Mapping[str, Any]) -> list[str]:
    """The models of which a pilot is asked for that has not loaded yet."""
    return [name.partition(":")[2] for name, value in settings.items() if name.startswith("load:") and value]
