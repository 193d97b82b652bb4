"""What was found when tasks were run again alone, as a table and in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ndif_batch.cli.output import Format, say, write_rows

if TYPE_CHECKING:
    from ndif_batch.archive import Verified
    from ndif_batch.client import Client

SHOWN_TASKS = 10


def recomputed(client: Client, job: int, count: int, seed: int, output: Format) -> bool:
    """Run tasks of a job again, list the largest deviation of each array, and say whether rounding explains them."""
    found = client.recompute(job, count, seed=seed)
    rows = [
        {
            "array": one.save,
            "task": one.task,
            "absolute": f"{one.absolute:.3g}" if output is Format.TABLE else one.absolute,
            "relative": f"{one.relative:.3g}" if output is Format.TABLE else one.relative,
        }
        for one in found.deviations
    ]
    write_rows(rows, ("array", "task", "absolute", "relative"), output)
    say(in_words(found))
    return not found.deviating


def in_words(found: Verified) -> str:
    """How many tasks were run again, and which of them differ by more than rounding explains."""
    if not found.tasks:
        return "no task was run again alone"
    largest = max((one.relative for one in found.deviations), default=0.0)
    if not found.deviating:
        return f"{found.tasks} tasks run again alone are the same, but for rounding (up to {largest:.2g})"
    named = ", ".join(map(str, found.deviating[:SHOWN_TASKS]))
    more = ", …" if len(found.deviating) > SHOWN_TASKS else ""
    return f"of {found.tasks} tasks run again alone these deviate by more than rounding explains: {named}{more}"
