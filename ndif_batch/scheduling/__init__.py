"""The cluster's decisions as pure functions: who is next, who pays, which pilots to keep."""

from ndif_batch.scheduling.charging import Charge, charge
from ndif_batch.scheduling.cluster import Backlog, Decisions, Limits, PilotPhase, PilotView, Start
from ndif_batch.scheduling.pilots import pilots_wanted
from ndif_batch.scheduling.policy import Candidate, Choice, Whole, choose, decayed, fair_share, ordered

__all__ = [
    "Backlog",
    "Candidate",
    "Charge",
    "Choice",
    "Decisions",
    "Limits",
    "PilotPhase",
    "PilotView",
    "Start",
    "Whole",
    "charge",
    "choose",
    "decayed",
    "fair_share",
    "ordered",
    "pilots_wanted",
]
