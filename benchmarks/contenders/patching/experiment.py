"""The patching experiment as this project's users write it."""

from __future__ import annotations

from typing import Any

from contenders.models import blocks
from contenders.patching.sweep import Sweep
from contenders.protocol import Subject
from ndif_batch import param
from ndif_batch.trace import LanguageModel, Trace

SAVED = "logit_diff"


def record(subject: Subject, lm: LanguageModel) -> Trace:
    layer, position = param("layer"), param("position")
    t = lm.trace()
    with t:
        with t.invoke(param("clean")):
            clean = blocks(subject, lm)[layer].output
        with t.invoke(param("corrupted")):
            blocks(subject, lm)[layer].output[:, position] = clean[:, position]
            logits = lm.lm_head.output[0, -1]
            (logits[param("answer")] - logits[param("distractor")]).save(SAVED)
    return t


def constants(given: Sweep) -> dict[str, Any]:
    """What the sweep never varies."""
    return {
        "clean": tuple(given.clean),
        "corrupted": tuple(given.corrupted),
        "answer": given.answer,
        "distractor": given.distractor,
    }
