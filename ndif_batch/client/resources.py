"""Compares the resources that a job asks for with those that workers of its model get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unmet(asked: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Where ``given`` is less than, or other than, what is ``asked``, as ``mem_gb 40 (is 20)``.

    Names are those of the settings.

    Of numbers as many or more will do; a walltime that the settings leave out is the scheduler's choice.
    """
    told = []
    for name, wanted in asked.items():
        have = given.get(name)
        if name == "timeout_min" and have is None:
            continue
        enough = isinstance(wanted, int | float) and isinstance(have, int | float) and have >= wanted
        if not enough and have != wanted:
            shown = f"{wanted:g}" if isinstance(wanted, int | float) else wanted
            told.append(f"{name} {shown} ({'not set' if have is None else f'is {have}'})")
    return told
