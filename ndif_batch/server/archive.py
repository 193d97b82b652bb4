"""The files of archives, whole or in ranges, as Zarr's readers ask for them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from ndif_batch.errors import NotFoundError
from ndif_batch.queue.access import Scope
from ndif_batch.queue.routes import PREFIX
from ndif_batch.server.callers import caller_queue
from ndif_batch.server.tags import JSON, answer, tagged

router = APIRouter(prefix=PREFIX)

JobId = Annotated[int, InPath(ge=0, lt=2**63)]


@router.head("/archive/{job_id}/{name:path}", include_in_schema=False)
@router.get(
    "/archive/{job_id}/{name:path}",
    operation_id="archive_file",
    summary="A file of a job's archive; with a slash at the end, the names in a folder of it.",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}, "application/json": {}}},
        206: {"description": "the range that was asked for"},
        304: {"description": "it has not changed"},
    },
)
def archive_file(request: Request, job_id: JobId, name: str) -> Response:
    """Ranges as in RFC 9110; ``If-None-Match`` with the ``ETag`` of an earlier answer."""
    store = caller_queue(request, Scope.READ).archive(job_id)
    if not name or name.endswith("/"):
        return answer(request, json.dumps(_names(store, name)).encode())
    try:
        file = _inside(store, name)
        found = os.stat(file, follow_symlinks=False)
    except OSError:
        raise NotFoundError(f"the archive of job {job_id} has no {name!r}") from None
    if not stat.S_ISREG(found.st_mode):
        raise NotFoundError(f"the archive of job {job_id} has no file {name!r}")
    headers, known = tagged(request, repr((found.st_ino, found.st_mtime_ns, found.st_size)).encode())
    if known:
        return Response(status_code=304, headers=headers)
    kind = JSON if file.name == "zarr.json" else "application/octet-stream"
    return FileResponse(file, headers=headers, media_type=kind, stat_result=found)


def _inside(store: Path, name: str) -> Path:
    """A path beneath ``store`` that no name can leave: hidden files, ``..`` and links, itself too, are not there."""
    parts = [part for part in name.split("/") if part] if name.strip("/") else []
    if any(part.startswith(".") or "\0" in part or "\\" in part for part in parts):
        raise NotFoundError(f"there is no {name!r}")
    found = store
    for inner in (store, *(found := found / part for part in parts)):
        if inner.is_symlink():
            raise NotFoundError(f"there is no {name!r}")
    return found


def _names(store: Path, folder: str) -> list[str]:
    try:
        return sorted(entry.name for entry in _inside(store, folder).iterdir() if not entry.name.startswith("."))
    except OSError:
        raise NotFoundError(f"there is no folder {folder!r} of results") from None
