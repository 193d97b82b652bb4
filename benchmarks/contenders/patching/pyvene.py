"""pyvene at its best: all positions of a layer as rows of one batch, the clean activations given, not run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyvene
import torch

from contenders.models import blocks, load_model
from contenders.patching.raw_hooks import residuals
from contenders.patching.sweep import Sweep, patch_all, sweep
from contenders.protocol import Subject, read


def intervenable(layer: int, model: Any) -> Any:
    """The model with an intervention after one block."""
    config = {"layer": layer, "component": "block_output", "intervention_type": pyvene.VanillaIntervention}
    return pyvene.IntervenableModel(config, model=model)


@torch.inference_mode()
def patch(
    subject: Subject, given: Sweep, model: Any, by_layer: Mapping[int, Any], layers: Sequence[int], *, rows: int
) -> list[float]:
    clean = residuals(model, blocks(subject, model), torch.tensor([given.clean], device=subject.device))
    corrupted = torch.tensor([given.corrupted], device=subject.device)
    values = []
    for layer in layers:
        (key,) = by_layer[layer].interventions
        for first in range(0, len(given.positions), rows):
            batch = given.positions[first : first + rows]
            places = [[[position] for position in batch]]
            _, output = by_layer[layer](
                {"input_ids": corrupted.expand(len(batch), -1)},
                unit_locations={"sources->base": (places, places)},
                source_representations={key: clean[layer][0, list(batch), None]},
            )
            logits = output.logits[:, -1]
            values.append(logits[:, given.answer] - logits[:, given.distractor])
    found: list[float] = torch.cat(values).tolist()
    return found


if __name__ == "__main__":
    problem = read()
    model = load_model(problem.subject)
    by_layer = {layer: intervenable(layer, model) for layer in range(problem.subject.layers)}
    run = partial(patch, problem.subject, sweep(problem), model, by_layer, **problem.arguments)
    patch_all(problem, run, ["pyvene", "torch", "transformers"])
