"""What a run of a model that takes tensors begins with, from what a user gives: images, texts, tensors."""

from __future__ import annotations

from typing import Any

from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.nodes import Inputs
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.inputs import check_inputs, check_values
from ndif_batch.models.processing import tensors_of
from ndif_batch.trace.constants import dtype_name, take


def inputs_of(info: ModelInfo, what: str, prompt: Any, constants: dict[str, Any]) -> Inputs:
    """The prompt as tensors that are put among ``constants``; what is wrong with it is an error that names ``what``."""
    if isinstance(prompt, Inputs):
        return prompt
    found = Inputs.of({name: take(constants, tensor) for name, tensor in tensors_of(info, prompt).items()})
    known = {digest: constants[digest] for digest in found.digests.values()}
    shapes = {digest: AbstractTensor(tuple(one.shape), dtype_name(one.dtype)) for digest, one in known.items()}
    check_inputs(what, found, info.sites, shapes)
    check_values(what, {name: constants[digest] for name, digest in found.digests.items()}, info.sites)
    return found
