"""Records experiments written in Python as intervention graphs."""

from ndif_batch.trace.backend import Backend
from ndif_batch.trace.experiment import Scan, Session, Trace
from ndif_batch.trace.language_model import LanguageModel
from ndif_batch.trace.parameters import Param, param

__all__ = ["Backend", "LanguageModel", "Param", "Scan", "Session", "Trace", "param"]
