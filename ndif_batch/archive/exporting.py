"""Copies results into one file of another format."""

from __future__ import annotations

import json
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, assert_never
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from ndif_batch.archive.files import write_file
from ndif_batch.archive.results import Results
from ndif_batch.errors import NotFoundError, UsageError, nearest


class ExportFormat(StrEnum):
    """What :func:`export` can write."""

    SAFETENSORS = "safetensors"
    NPZ = "npz"
    PARQUET = "parquet"
    CSV = "csv"


def export(results: Results, path: Path, format: str) -> tuple[str, ...]:  # noqa: A002
    """Write the results to the file ``path``, whole or not at all; returns the saves that the format left out.

    ``safetensors`` and ``npz`` hold every save, ``task_status``, lengths and labels; safetensors in the saved dtypes
    (bfloat16 too), with dimensions, text labels and attributes as JSON in its metadata. ``parquet`` and ``csv`` hold
    :meth:`Results.dataframe` and leave larger saves out. The values pass through memory.
    """
    if format not in list(ExportFormat):
        raise UsageError(f"results cannot be exported to {format!r}", hint=nearest(format, map(str, ExportFormat)))
    if not path.parent.is_dir():
        raise NotFoundError(f"there is no directory {path.parent}")
    kind = ExportFormat(format)
    match kind:
        case ExportFormat.SAFETENSORS:
            write_file(path, _safetensors(results))
            return ()
        case ExportFormat.NPZ:
            write_file(path, _npz(results))
            return ()
        case ExportFormat.PARQUET | ExportFormat.CSV:
            return _table(results, path, kind)
        case _:
            assert_never(kind)


def _safetensors(results: Results) -> bytes:
    import torch
    from safetensors.torch import save

    data = results.xarray()
    tensors = {name: results.torch(name) for name in results}
    labels = {}
    for name in sorted(map(str, data.coords)):
        values = _plain(data[name].values)
        if values.dtype.kind == "U":
            labels[name] = values.tolist()
        else:
            tensors[name] = torch.from_numpy(values)
    dims = {str(name): list(array.dims) for name, array in data.variables.items()}
    metadata = {"dims": dims, "labels": labels, "attributes": results.attributes}
    return save(tensors, {key: json.dumps(value) for key, value in metadata.items()})


def _npz(results: Results) -> bytes:
    packed = BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for name, array in results.xarray().variables.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, _plain(array.values), allow_pickle=False)
    return packed.getvalue()


def _plain(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype.kind == "T":
        values = values.astype(object)
    return np.array(values, dtype=str if values.dtype.kind == "O" else values.dtype)


def _table(results: Results, path: Path, kind: ExportFormat) -> tuple[str, ...]:
    frame = results.dataframe()
    skipped = tuple(frame.attrs["skipped"])
    if len(skipped) == len(results):
        raise UsageError(f"no save is a single number, so there is no table for {kind}", hint="use safetensors or npz")
    table = BytesIO()
    if kind is ExportFormat.CSV:
        frame.to_csv(table)
    else:
        try:
            frame.to_parquet(table, engine="pyarrow")
        except ImportError:
            raise UsageError("parquet needs pyarrow", hint="pip install 'ndif-batch[export]'") from None
    write_file(path, table.getvalue())
    return skipped
