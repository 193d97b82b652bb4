"""Looks at an experiment without running it: shapes and dtypes of its values for given bindings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ndif_batch.errors import NdifBatchError, UsageError
from ndif_batch.graph.abstract import Abstract, AbstractTensor
from ndif_batch.graph.infer import infer
from ndif_batch.graph.nodes import Graph, Value
from ndif_batch.models.info import ModelInfo
from ndif_batch.models.tokenizer import concrete
from ndif_batch.trace.constants import dtype_name


def look(
    info: ModelInfo,
    graph: Graph,
    places: Sequence[str],
    bindings: Mapping[str, Value],
    tensors: Mapping[str, Any],
) -> list[Abstract]:
    """The abstract value of every node. An error's hint names the user's line of the node that it names."""
    known = {digest: AbstractTensor(tuple(t.shape), dtype_name(t.dtype)) for digest, t in tensors.items()}
    try:
        return infer(concrete(graph, bindings, info.tokenizer, info.sites), info.sites, known)
    except UsageError as error:
        _name_place(error, places)
        raise


def _name_place(error: NdifBatchError, places: Sequence[str]) -> None:
    found = re.match(r"node (\d+)\b", error.message)
    if found is not None:
        place = f"recorded at {places[int(found[1])]}"
        error.hint = place if error.hint is None else f"{error.hint} ({place})"
