"""Records experiments written in Python as intervention graphs."""

from ndif_batch.trace.backend import Backend
from ndif_batch.trace.experiment import Scan, Trace
from ndif_batch.trace.language_model import LanguageModel
from ndif_batch.trace.parameters import Param, param

__all__ = ["Backend", "LanguageModel", "Param", "Scan", "Trace", "param"]
