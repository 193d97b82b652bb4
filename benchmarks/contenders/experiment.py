"""The patching experiment as this project's users write it."""

from __future__ import annotations

from typing import Any

from contenders.protocol import Problem
from ndif_batch import param
from ndif_batch.trace import LanguageModel, Trace

SAVED = "logit_diff"


def record(lm: LanguageModel) -> Trace:
    t = lm.trace()
    with t:
        with t.invoke(param("clean")):
            clean = lm.model.layers[param("layer")].output
        with t.invoke(param("corrupted")):
            lm.model.layers[param("layer")].output[:, param("position")] = clean[:, param("position")]
            logits = lm.lm_head.output[0, -1]
            (logits[param("answer")] - logits[param("distractor")]).save(SAVED)
    return t


def constants(problem: Problem) -> dict[str, Any]:
    """What the sweep never varies."""
    return {
        "clean": tuple(problem.clean),
        "corrupted": tuple(problem.corrupted),
        "answer": problem.answer,
        "distractor": problem.distractor,
    }
