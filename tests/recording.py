"""Experiments recorded for the tiny models of tests."""

from __future__ import annotations

from pathlib import Path

from ndif_batch.models.info import ModelInfo
from ndif_batch.trace import LanguageModel
from tests.families import Subject


def recorder(subject: Subject) -> LanguageModel:
    """The front end of a tiny model."""
    nowhere = Path("nowhere")
    return LanguageModel(ModelInfo("random", "random", nowhere, nowhere, "0", "0", "float32", subject.loaded.sites))
