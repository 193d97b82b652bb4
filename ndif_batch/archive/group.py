"""The archive's group as files: its metadata document, its attributes, its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndif_batch.archive import files
from ndif_batch.archive.arrays import ArraySpec
from ndif_batch.archive.grid import Grid
from ndif_batch.archive.layout import all_layouts
from ndif_batch.archive.reduction import ReducedSpec
from ndif_batch.archive.spec import OWN_KEY, STATUS, ArchiveSpec, read_arrays
from ndif_batch.errors import IntegrityError, NotFoundError, UsageError

if TYPE_CHECKING:
    from ndif_batch.archive.remote import RemotePath

FORMAT = 1
GROUP = "zarr.json"
# Beneath an array: Zarr's readers warn of a strange file in a group, but look only for chunks in an array.
MANIFEST = f"{STATUS}/SHA256SUMS"


def group_attributes(spec: ArchiveSpec) -> dict[str, Any]:
    """The attributes of a new archive: the spec's, the archive's own, and what CF readers take as coordinates."""
    saves = {array.name for array in spec.arrays} | {one.name for one in spec.reduced}
    labels = [name for axis in spec.axes for name in axis.coordinates]
    beside_saves = [name for name in all_layouts(spec) if name not in saves]
    own = {
        "format": FORMAT,
        "digest": spec.digest,
        "axes": [{"name": a.name, "length": len(a), "coordinates": a.coordinates} for a in spec.axes],
        "tile": list(spec.tile),
        "arrays": spec.arrays_to_json(),
    }
    return {**spec.attributes, OWN_KEY: own, "coordinates": " ".join(labels + beside_saves)}


@dataclass(frozen=True, slots=True)
class Tasks:
    """What an archive says of its tasks and arrays: ``coordinates`` has for each the axis and the parameter."""

    grid: Grid
    axes: tuple[str, ...]
    coordinates: Mapping[str, tuple[str, str | None]]
    arrays: tuple[ArraySpec, ...]
    reduced: tuple[ReducedSpec, ...]

    @classmethod
    def of(cls, group: Mapping[str, Any], path: Path | RemotePath) -> Tasks:
        """As the group's metadata document has it; ``IntegrityError`` if it does not hold together."""
        try:
            own = group["attributes"][OWN_KEY]
            grid = Grid(tuple(axis["length"] for axis in own["axes"]), tuple(own["tile"]))
            labels = {
                name: (axis["name"], param) for axis in own["axes"] for name, param in axis["coordinates"].items()
            }
            return cls(grid, tuple(axis["name"] for axis in own["axes"]), labels, *read_arrays(own["arrays"]))
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise IntegrityError(f"the metadata of {path} is damaged: {error!r}") from error


def read_group(path: Path | RemotePath) -> dict[str, Any]:
    """The group's metadata document; ``NotFoundError`` without one, ``IntegrityError`` when it is damaged."""
    try:
        group: dict[str, Any] = json.loads((path / GROUP).read_bytes())
        if group["attributes"][OWN_KEY]["format"] != FORMAT:
            raise NotFoundError(f"the archive at {path} has another format than {FORMAT}")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no archive at {path}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is no archive, or its metadata is damaged: {error!r}") from None
    return group


def archive_files(path: Path) -> list[str]:
    """Every file of the archive that counts, relative to it, sorted: not the manifest, not unfinished writes."""
    found = (file for file in path.rglob("*") if file.is_file() and not files.is_temporary(file))
    return sorted(name for file in found if (name := file.relative_to(path).as_posix()) != MANIFEST)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
