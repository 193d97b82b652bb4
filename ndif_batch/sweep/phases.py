"""What a phase of a sweep takes from an earlier one, before that is a job."""

from __future__ import annotations

from dataclasses import dataclass

from ndif_batch.graph.nodes import TensorRef


@dataclass(frozen=True, slots=True)
class PhaseRef(TensorRef):
    """The result ``save`` of the phase of that name; its digest is not known yet."""

    phase: str
    save: str
