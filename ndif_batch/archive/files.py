"""Files that are there whole or not at all, whatever dies: temporary name, fsync, rename, fsync of the directory."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ndif_batch.errors import UnavailableError

BEGIN_BYTES = 2**22
"""The disk begins with a file when so much of it is there."""

_TEMPORARY = re.compile(r"\..+\.(?P<host>[^.]+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp")


def temporary_beside(path: Path) -> Path:
    """A name nobody uses, in the same directory, that says which process of which host writes there."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether the name is one of :func:`temporary_beside`."""
    return _TEMPORARY.fullmatch(path.name) is not None


def is_abandoned(path: Path, *, before: float) -> bool:
    """Whether a temporary's writer is dead: a process of this host that is gone, or any untouched since ``before``.

    ``before`` is a time in seconds since the epoch.
    """
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match["host"] == _host() and not _is_alive(int(match["pid"])):
        return True
    try:
        return path.stat().st_mtime < before
    except FileNotFoundError:
        return False


def write_file(path: Path, data: bytes | Iterable[bytes], *, temporary: Path | None = None) -> None:
    """Replace ``path`` by ``data``, whole or in parts, durably. ``UnavailableError`` leaves what was there before.

    ``temporary`` is where the bytes lie until they are complete: beside ``path`` unless given.
    """
    temporary = temporary or temporary_beside(path)
    size = begun = 0
    try:
        with open(temporary, "xb") as file:
            for part in (data,) if isinstance(data, bytes) else data:
                size += len(part)
                file.write(part)
                if size - begun >= BEGIN_BYTES:
                    _begin_writing(file, begun, size)
                    begun = size
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise storage_error(error, path, size) from error
        raise


def _begin_writing(file: BinaryIO, start: int, stop: int) -> None:
    """Let the disk begin with a part that is written, while the next is made."""
    file.flush()
    os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_DONTNEED)


def remove_file(path: Path) -> None:
    """Remove a file durably; one that is not there stays so."""
    try:
        path.unlink()
        sync(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, path) from error


def sync(path: Path) -> None:
    """fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """fsync every file and directory beneath ``root``, and ``root``."""
    for directory, _, names in os.walk(root):
        for name in names:
            sync(Path(directory, name))
        sync(Path(directory))


def storage_error(error: OSError, path: Path, size: int | None = None) -> UnavailableError:
    """The error for a disk that does not take a write of ``size`` bytes."""
    what = "files" if size is None else f"{size:,} bytes"
    reason = error.strerror or str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "free some space there, then retry" if full else None
    return UnavailableError(f"cannot write {what} to {path}: {reason}", hint=hint)


def _host() -> str:
    return socket.gethostname().replace(".", "-") or "localhost"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
