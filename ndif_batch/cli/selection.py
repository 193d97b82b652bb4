"""Parts of a saved array by label, and what a picture of them shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ndif_batch.archive.spec import STATUS, sentinel
from ndif_batch.cli.picture import Axis, Picture, token_label
from ndif_batch.errors import NotFoundError, UsageError, nearest
from ndif_batch.sweep.marked import typed

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ndif_batch.archive import Results

TOKEN_DIMS = ("position", "pos", "token")
"""Dimensions whose numbers count the tokens of the prompt."""

LONGEST_LABEL = 40


def select(results: Results, save: str, at: Sequence[str]) -> xr.DataArray:
    """A save with each ``name=value`` of ``at`` applied: a label, else a place counted from the end (``layer=-1``)."""
    _ = results[save]
    data = results.xarray()[save]
    lengths = [name for array in results.arrays.values() for name in array.lengths]
    data = data.drop_vars([name for name in (STATUS, *lengths) if name in data.coords])
    for option in at:
        name, equals, text = option.partition("=")
        if not equals:
            raise UsageError(f"{option!r} is not name=value", hint="write, for example, --at layer=5")
        data = _chosen(data, name.strip(), text)
    return data


def average(data: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    """The mean over ``dims`` of what was saved."""
    for dim in dims:
        if dim not in data.dims:
            raise UsageError(f"there is no dimension {dim!r}", hint=nearest(dim, map(str, data.dims)))
    return numbers(data).mean(list(dims)) if dims else data


def numbers(data: xr.DataArray) -> xr.DataArray:
    """The values as float64, NaN where nothing was saved."""
    values = data.astype(np.float64)
    return values if data.dtype.kind == "f" else values.where(data != sentinel(str(data.dtype)))


def labelled(data: xr.DataArray, title: str, tokens: Sequence[str] | None) -> Picture:
    """A picture of at most two dimensions; positions get the prompt's ``tokens`` if they are known."""
    axes = tuple(_axis(data, str(dim), tokens or ()) for dim in data.dims)
    kept = [f"{name}={_short(coordinate.item())}" for name, coordinate in data.coords.items() if coordinate.ndim == 0]
    where = f" at {', '.join(kept)}" if kept else ""
    return Picture(title + where, np.asarray(numbers(data).values, dtype=np.float64), axes)


def long_table(data: xr.DataArray, name: str) -> pd.DataFrame:
    """A row for each value: the coordinates of its place, then the value."""
    counted = {dim: np.arange(length) for dim, length in data.sizes.items() if dim not in data.coords}
    if not data.ndim:
        import pandas

        return pandas.DataFrame({name: [data.item()]})
    frame: pd.DataFrame = data.assign_coords(counted).to_dataframe(name).reset_index()
    return frame


def _chosen(data: xr.DataArray, name: str, text: str) -> xr.DataArray:
    known = [str(key) for key in (*data.coords, *data.dims)]
    if name not in known:
        raise UsageError(f"there is no dimension or coordinate {name!r}", hint=nearest(name, dict.fromkeys(known)))
    coordinate = data.coords.get(name)
    if coordinate is not None and not coordinate.ndim:
        return data
    labels = list(range(data.sizes[name])) if coordinate is None else coordinate.values.tolist()
    wanted = typed(text)
    found = [place for place, label in enumerate(labels) if label == wanted or str(label) == text]
    if not found and isinstance(wanted, int) and -len(labels) <= wanted < 0:
        found = [wanted]
    if not found:
        raise NotFoundError(f"{name!r} has no label {text!r}", hint=nearest(text, map(_short, labels)))
    return data.isel({name if coordinate is None else coordinate.dims[0]: found[0]})


def _axis(data: xr.DataArray, dim: str, tokens: Sequence[str]) -> Axis:
    labels = data.coords[dim].values.tolist() if dim in data.coords else list(range(data.sizes[dim]))
    pieces: list[str] = []
    if dim in TOKEN_DIMS and all(isinstance(label, int) and -len(tokens) <= label < len(tokens) for label in labels):
        pieces = [token_label(tokens[label]) for label in labels]
    return Axis(dim, [_short(label) for label in labels], pieces)


def _short(label: Any) -> str:
    text = f"{label:.6g}" if isinstance(label, float) else str(label)
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
