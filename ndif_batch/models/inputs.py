"""What models take that do not run on token ids: tensors by name, each one item of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ndif_batch.errors import ModelError, nearest
from ndif_batch.graph.abstract import AbstractTensor
from ndif_batch.graph.dtypes import FLOATS, INTEGERS
from ndif_batch.graph.nodes import Inputs, Value
from ndif_batch.graph.sites import SiteMap, SiteTensor

PIXELS, IDS, MASK = "pixel_values", "input_ids", "attention_mask"
"""What transformers calls an image, the tokens of a text, and which of these are no padding."""


def check_kind(what: str, prompt: Value, sites: SiteMap) -> None:
    """``ModelError`` if ``prompt`` is text or token ids and the model takes tensors, or the other way round."""
    if sites.inputs is None and isinstance(prompt, Inputs):
        raise ModelError(
            f"{what} is tensors ({', '.join(prompt.digests)}), and the model takes text",
            hint="give text or token ids",
        )
    if sites.inputs is not None and not isinstance(prompt, Inputs):
        given = f"the text {prompt[:40]!r}" if isinstance(prompt, str) else "token ids"
        raise ModelError(f"{what} is {given}, and the model takes {described(sites.inputs)}")


def check_inputs(what: str, prompt: Inputs, sites: SiteMap, known: Mapping[str, AbstractTensor]) -> None:
    """``ModelError`` unless the tensors of a prompt are those that the model takes: names, shapes, kinds of numbers.

    ``known`` has shape and dtype of each by digest.
    """
    wanted = sites.inputs or {}
    for name in prompt.digests:
        if name not in wanted:
            raise ModelError(f"{what}: the model takes no input {name!r}", hint=nearest(name, wanted))
    for name, expected in wanted.items():
        if name not in prompt.digests:
            raise ModelError(f"{what} has no {name!r}", hint=f"the model takes {described(wanted)}")
        _check_tensor(f"{what}: {name!r}", known[prompt.digests[name]], expected)


def check_values(what: str, tensors: Mapping[str, Any], sites: SiteMap) -> None:
    """``ModelError`` if torch's or numpy's ``tensors`` hold NaN or infinity, or ids of no token of the vocabulary."""
    for name, tensor in tensors.items():
        array = np.asarray(tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().double())
        if not np.isfinite(array).all():
            raise ModelError(f"{what}: {name!r} holds NaN or infinity")
        wrong = array[(array < 0) | (array >= sites.vocabulary)] if name == IDS and sites.vocabulary else array[:0]
        if wrong.size:
            raise ModelError(
                f"{what}: {name!r} holds {int(wrong.flat[0])}, which is no token id of the model",
                hint=f"ids go from 0 to {sites.vocabulary - 1}",
            )


def described(inputs: Mapping[str, SiteTensor]) -> str:
    """The inputs of a model in words: ``pixel_values (float32 [1, 3, 224, 224])``."""
    return ", ".join(f"{name} ({one.dtype} {list(one.at(1))})" for name, one in inputs.items())


def _check_tensor(what: str, given: AbstractTensor, expected: SiteTensor) -> None:
    hint: str | None = None
    if given.shape != expected.at(1):
        if given.shape[1:] == expected.at(1)[1:]:
            hint = "the first axis is the batch's, and a run is one item: give each a run of its own"
        raise ModelError(
            f"{what} has the shape {list(given.shape)}, and the model takes {list(expected.at(1))}", hint=hint
        )
    if _kind(given.dtype) != _kind(expected.dtype):
        if expected.dtype in FLOATS:
            hint = "scale and normalise it, as the model's own processor does"
        raise ModelError(f"{what} is {given.dtype}, and the model takes {expected.dtype}", hint=hint)


def _kind(dtype: str) -> str:
    return "float" if dtype in FLOATS else "int" if dtype in INTEGERS else dtype
