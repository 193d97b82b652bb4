"""Reads the images that a parameter space names, in the process that submits: a server never opens such a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ndif_batch import blobs
from ndif_batch.errors import NdifBatchError
from ndif_batch.graph.nodes import Graph, Inputs, ParamType, Value
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.inputs import check_values
from ndif_batch.models.processing import tensors_of
from ndif_batch.sweep.space import Axis, Space


def read_prompts(graph: Graph, space: Space, model: ModelInfo, folder: Path) -> tuple[Space, dict[str, Any]]:
    """``space`` with the tensors of images and texts in their place, and these tensors by digest.

    Prompts of a model that takes tensors are texts in the space: the path of an image, looked for in ``folder``, or
    ``{"images": …, "text": …}`` in JSON. Each is read once. Of any other model the space stays as it is.
    """
    if model.sites.inputs is None:
        return space, {}
    constants: dict[str, Any] = {}
    known: dict[str, Inputs] = {}

    def read(name: str, text: str) -> Inputs:
        try:
            tensors = tensors_of(model, text, folder)
            check_values("the prompt", tensors, model.sites)
        except NdifBatchError as error:
            error.message = f"parameter {name!r}: {error.message}"
            raise
        digests = {}
        for key, tensor in tensors.items():
            digests[key] = blobs.digest(blobs.encode(tensor))
            constants[digests[key]] = tensor
        return Inputs.of(digests)

    def column(name: str, values: Sequence[Value]) -> Sequence[Value]:
        if graph.params.get(name) is not ParamType.PROMPT or isinstance(values, range):
            return values
        for value in values:
            if isinstance(value, str) and value not in known:
                known[value] = read(name, value)
        return [known[value] if isinstance(value, str) else value for value in values]

    axes = [
        Axis(axis.name, {name: column(name, values) for name, values in axis.columns.items()}) for axis in space.axes
    ]
    fixed = {name: column(name, (value,))[0] for name, value in space.constants.items()}
    return Space(tuple(axes), fixed, space.rules), constants
