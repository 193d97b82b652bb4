"""What every implementation of :class:`ndif_batch.queue.protocol.WorkerQueue` must do.

A subclass gives two fixtures: ``stand``, a :class:`~tests.queue.worker_queue_stand.Stand` of its own for each test, and
``outage``, an :class:`~tests.queue.worker_queue_stand.Outage`, parametrised over the places where a call can break.
"""

from __future__ import annotations

from tests.queue.conformance_dependencies import Dependencies
from tests.queue.conformance_leases import Leases
from tests.queue.conformance_outcomes import Outcomes
from tests.queue.conformance_repeats import Repeats
from tests.queue.conformance_sources import Sources


class WorkerQueueConformance(Leases, Outcomes, Repeats, Sources, Dependencies):
    """All of it."""
