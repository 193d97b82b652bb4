"""Pilots in this very process: ``start`` comes back when the pilot has drained what there was."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ndif_batch.errors import NdifBatchError
from ndif_batch.launcher import pilot
from ndif_batch.launcher.protocol import Observed, PilotRequest, PilotState


class InlineLauncher:
    """For one process that schedules and works in turns. Resources are those of this process."""

    def __init__(self, folder: Path, body: Callable[[Path], None] = pilot.run) -> None:
        self.folder = pilot.private(folder)
        self._body = body
        self._ended: dict[str, Observed] = {}

    def start(self, request: PilotRequest) -> str:
        """Be the pilot until no work is left; an error of the pilot is its end, not the caller's."""
        folder = pilot.write_order(self.folder, replace(request, idle_seconds=0.0))
        outside = dict(os.environ)
        word = "COMPLETED"
        try:
            self._body(folder)
        except NdifBatchError:
            word = "FAILED"
        finally:
            os.environ.clear()
            os.environ.update(outside)
        external_id = str(os.getpid())
        self._ended[request.name] = Observed(PilotState.ENDED, external_id, pilot.ending(word, folder))
        return external_id

    def observe(self) -> Mapping[str, Observed]:
        """The pilots that ended since the last look."""
        ended, self._ended = self._ended, {}
        return ended

    def cancel(self, name: str) -> None:
        """Nothing: whoever can call this runs no pilot."""

    def drain(self, name: str) -> None:
        """Nothing: whoever can call this runs no pilot."""
