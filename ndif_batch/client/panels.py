"""Pictures of a saved array of any number of dimensions: two of them in each picture, the others beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ndif_batch.archive.arrays import sentinel
from ndif_batch.client.picture import Axis, Numbers, Picture, token_label

if TYPE_CHECKING:
    import xarray as xr

TOKEN_DIMS = ("position", "pos", "token")
"""Dimensions whose numbers count the tokens of the prompt."""

LONGEST_LABEL = 40


@dataclass(frozen=True, slots=True)
class Panels:
    """Pictures with one scale, of ``total`` that there are: one for each combination of labels along ``dims``."""

    pictures: tuple[Picture, ...]
    dims: tuple[str, ...]
    total: int


def panels(data: xr.DataArray, title: str, tokens: Sequence[str] | None, most: int) -> Panels:
    """At most ``most`` pictures of ``data``, evenly chosen, each of its two longest dimensions.

    Positions get the prompt's ``tokens`` if they are known. Only what is drawn is read.
    """
    data = data.squeeze()
    by_length = sorted(data.dims, key=lambda dim: data.sizes[dim])
    beside = [dim for dim in data.dims if dim in by_length[:-2]]
    total = prod(data.sizes[dim] for dim in beside)
    places = list(product(*(range(data.sizes[dim]) for dim in beside)))
    chosen = [places[round(k)] for k in np.linspace(0, total - 1, min(most, total))]
    pictures = [labelled(data.isel(dict(zip(beside, place, strict=True))), title, tokens) for place in chosen]
    numbers = np.concatenate([picture.finite for picture in pictures])
    span = (float(numbers.min()), float(numbers.max())) if numbers.size else None
    return Panels(tuple(replace(one, span=span) for one in pictures), tuple(map(str, beside)), total)


def labelled(data: xr.DataArray, title: str, tokens: Sequence[str] | None) -> Picture:
    """A picture of at most two dimensions, titled with the labels of those that it has not."""
    axes = tuple(_axis(data, str(dim), tokens or ()) for dim in data.dims)
    kept = [f"{name}={short_label(where.item())}" for name, where in sorted(data.coords.items()) if not where.ndim]
    where = f" at {', '.join(kept)}" if kept else ""
    return Picture(title + where, as_numbers(data), axes)


def as_numbers(data: xr.DataArray) -> Numbers:
    """The values as float64, NaN where nothing was saved."""
    values = np.asarray(data.values)
    found: Numbers = values.astype(np.float64)
    if values.dtype.kind != "f":
        found = np.where(values == sentinel(str(data.dtype)), np.nan, found)
    return found


def short_label(label: Any) -> str:
    """A label as text, not too long."""
    text = f"{label:.6g}" if isinstance(label, float) else str(label)
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def _axis(data: xr.DataArray, dim: str, tokens: Sequence[str]) -> Axis:
    labels = data.coords[dim].values.tolist() if dim in data.coords else list(range(data.sizes[dim]))
    pieces: list[str] = []
    if dim in TOKEN_DIMS and all(isinstance(label, int) and -len(tokens) <= label < len(tokens) for label in labels):
        pieces = [token_label(tokens[label]) for label in labels]
    return Axis(dim, [short_label(label) for label in labels], pieces)
