"""The measured model in nnsight's hands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from nnsight import LanguageModel

from contenders.models import load_model, make_tokenizer
from contenders.protocol import Subject

LIBRARIES = ("nnsight", "torch", "transformers")


def wrap(subject: Subject) -> LanguageModel:
    warnings.simplefilter("ignore")
    return LanguageModel(load_model(subject), tokenizer=make_tokenizer(subject))


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive pieces of at most ``size`` items: one trace each."""
    for first in range(0, len(items), size):
        yield items[first : first + size]
