"""The life of an archive: made at once, finished with a manifest, cleaned of what dead writers left."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from ndif_batch.archive import files
from ndif_batch.archive.coordinates import coordinates
from ndif_batch.archive.group import GROUP, MANIFEST, Tasks, archive_files, file_digest, group_attributes, read_group
from ndif_batch.archive.layout import all_layouts
from ndif_batch.archive.reducing import write_reduced
from ndif_batch.archive.spec import OWN_KEY, STATUS, ArchiveSpec, check_attributes
from ndif_batch.archive.store import consolidate, create_array, create_coordinate
from ndif_batch.errors import ConflictError, IntegrityError, NotAllowedError, NotFoundError


def create(path: Path, spec: ArchiveSpec) -> None:
    """Make the archive at ``path``, empty; all of it appears at once.

    An equal one that is there already is left as it is; a different one is a ``ConflictError``.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        _require_equal(path, spec)
        return
    temporary = files.temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _build(temporary, spec)
        files.sync_tree(temporary)
        os.rename(temporary, path)
        files.sync(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise files.storage_error(error, path) from error
        _require_equal(path, spec)


def finish(path: Path, attributes: Mapping[str, Any]) -> None:
    """Write the job's statistics, add ``attributes`` to the archive's and write the manifest: SHA-256 of every file, as
    ``sha256sum -c`` reads it.

    A shard written later removes the manifest; finish again then.
    """
    check_attributes(attributes)
    group = read_group(path)
    group["attributes"] |= attributes
    manifest = path / MANIFEST
    files.remove_file(manifest)
    tasks = Tasks.of(group, path)
    write_reduced(path, tasks.reduced, tasks.grid, tasks.axes)
    temporary = files.temporary_beside(path / STATUS / GROUP)
    files.write_file(path / GROUP, json.dumps(group).encode(), temporary=temporary)
    lines = [f"{file_digest(path / name)}  {name}\n" for name in archive_files(path)]
    files.write_file(manifest, "".join(lines).encode())


def clean(path: Path, *, older_than: float = 3600.0, now: float | None = None) -> list[Path]:
    """Remove what dead writers left in and beside the archive, and say what.

    A writer is dead when its process is gone from this host, or its file was untouched for ``older_than`` seconds.
    """
    before = (time.time() if now is None else now) - older_than
    inside = path.glob("*/.*.tmp")
    beside = path.parent.glob(f".{path.name}.*.tmp")
    abandoned = [left for left in (*inside, *beside) if files.is_abandoned(left, before=before)]
    for left in abandoned:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    return abandoned


def remove(path: Path) -> None:
    """Delete the archive at ``path`` with what writers left beside it; nobody meets a part of it.

    Of one that is not there, or that was half deleted by a process that died, what is left is deleted. Raises
    ``NotAllowedError`` if it is another account's, ``UnavailableError`` if the disk refuses.
    """
    try:
        with suppress(FileNotFoundError):
            os.rename(path, files.temporary_beside(path))
            files.sync(path.parent)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            with suppress(FileNotFoundError):
                shutil.rmtree(left)
    except PermissionError as error:
        raise NotAllowedError(f"{path} belongs to another account") from error
    except OSError as error:
        raise files.storage_error(error, path) from error


def _require_equal(path: Path, spec: ArchiveSpec) -> None:
    try:
        there = read_group(path)["attributes"][OWN_KEY]["digest"]
    except (NotFoundError, IntegrityError):
        raise ConflictError(f"{path} is there and is no archive", hint="choose another name or remove it") from None
    if there != spec.digest:
        raise ConflictError(f"there is another archive at {path}", hint="choose another name or remove that one")


def _build(path: Path, spec: ArchiveSpec) -> None:
    store = LocalStore(path)
    zarr.create_group(store)
    for axis in spec.axes:
        for coordinate in coordinates(axis):
            create_coordinate(store, coordinate)
    for name, layout in all_layouts(spec).items():
        create_array(store, layout, name=name, shape=layout.shape)
    consolidate(store)
    # Past zarr, which goes through the prompts of a large space in Python, value by value.
    group = {**json.loads((path / GROUP).read_bytes()), "attributes": group_attributes(spec)}
    (path / GROUP).write_text(json.dumps(group))
