"""Parts of a saved array by label, as an array or as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ndif_batch.archive.spec import STATUS
from ndif_batch.client.panels import as_numbers, short_label
from ndif_batch.errors import NotFoundError, UsageError, nearest
from ndif_batch.sweep.marked import typed

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from ndif_batch.archive import Results


def select(results: Results, save: str, at: Sequence[str]) -> xr.DataArray:
    """A save with each ``name=value`` of ``at`` applied: a label, else a place counted from the end (``layer=-1``)."""
    _ = results[save]
    data = results.xarray()[save]
    beside = [name for array in results.arrays.values() for name in array.lengths]
    beside += [name for one in results.reduced.values() for name in one.names]
    data = data.drop_vars([name for name in (STATUS, *beside) if name in data.coords])
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
    return data.copy(data=as_numbers(data)).mean(list(dims)) if dims else data


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
        raise NotFoundError(f"{name!r} has no label {text!r}", hint=nearest(text, map(short_label, labels)))
    return data.isel({name if coordinate is None else coordinate.dims[0]: found[0]})
