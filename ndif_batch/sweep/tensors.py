"""Tensors that a sweep file takes from safetensors files: the weights of a lens or an autoencoder, a direction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from ndif_batch import blobs
from ndif_batch.errors import IntegrityError, nearest
from ndif_batch.graph.nodes import TensorRef
from ndif_batch.sweep.config import ExperimentConfig, TensorFile, split_names
from ndif_batch.sweep.marked import Document, Location

Find: TypeAlias = Callable[[Location, str], Path]


def bound_tensors(
    config: ExperimentConfig, document: Document, find: Find
) -> tuple[dict[str, TensorRef], dict[str, Any]]:
    """What each parameter that takes a tensor is bound to, and the torch tensors by digest.

    ``find`` gives the path of a file that the sweep names. ``SweepError`` if that is no safetensors file, or lacks the
    tensor.
    """
    entries = config.parameters if isinstance(config.parameters, dict) else {}
    bound: dict[str, TensorRef] = {}
    tensors: dict[str, Any] = {}
    for key, entry in entries.items():
        if isinstance(entry, TensorFile):
            tensor = _read(key, entry, document, find)
            bound[key] = TensorRef(blobs.digest(blobs.encode(tensor)))
            tensors[bound[key].digest] = tensor
    return bound, tensors


def _read(key: str, entry: TensorFile, document: Document, find: Find) -> Any:
    at: Location = ("parameters", key)
    if len(split_names(key)) > 1:
        raise document.error("a tensor is the value of one parameter", at)
    path = find((*at, "tensor"), entry.tensor)
    try:
        known = blobs.names(path)
        name = entry.name or (known[0] if len(known) == 1 else key)
        if name not in known:
            raise document.error(f"{path.name} has no tensor {name!r}", at, hint=nearest(name, known))
        return blobs.read(path, name)
    except IntegrityError as error:
        raise document.error(error.message, (*at, "tensor")) from None
