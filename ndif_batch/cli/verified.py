"""What was found when tasks were run again alone, as a table and in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ndif_batch.archive.verified import in_words
from ndif_batch.cli.output import Format, say, write_rows

if TYPE_CHECKING:
    from ndif_batch.client import Client


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
