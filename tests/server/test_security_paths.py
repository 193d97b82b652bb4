"""No name that a user gives leads to a file that is not theirs: jobs, users, models, blobs, archives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ndif_batch import blobs
from ndif_batch.client import Client, JobHandle
from ndif_batch.graph.serialize import graph_to_json
from ndif_batch.sweep.space import Axis, Space
from tests import toy
from tests.server.serving import Served

OUTSIDE = (
    "..",
    "../x",
    "../../../../etc/passwd",
    "..%2fx",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "%c0%ae%c0%ae%c0%afetc",
    "..%5c..%5cx",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "%00",
    "x%00.json",
    ".%00./x",
    "%ff%fe",
)
NAMES = ("..", "../x", "/etc/passwd", "a/b", "..\\x", "", ".", ".hidden", "a b", "x" * 300, "a\nb", "é")


def raw(http: httpx.Client, verb: str, path: str, content: bytes | None = None) -> httpx.Response:
    """A request whose path is sent as it is written."""
    return http.request(verb, "/", content=content, extensions={"target": path.encode()})


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "queue.db" not in path.name}


def test_a_constant_is_stored_under_its_digest_or_not_at_all(served: Served, behind: Client) -> None:
    before, tensor = files(behind.settings.data_dir), blobs.encode(np.zeros(3, np.float32))
    with served.http("ada") as http:
        for name in OUTSIDE:
            assert raw(http, "PUT", f"/v1/constants/{name}", tensor).status_code in (400, 404, 405), name
    assert files(behind.settings.data_dir) == before


def test_no_route_takes_a_path_for_a_name(served: Served, done: JobHandle) -> None:
    places = (
        "/v1/models/{}",
        "/v1/models/{}/entry",
        "/v1/users/{}",
        "/v1/jobs/{}",
        "/v1/archive/{}/zarr.json",
        f"/v1/archive/{done.id}/{{}}",
        f"/v1/archive/{done.id}/residual/{{}}",
        f"/v1/archive/{done.id}/{{}}/",
    )
    with served.http("root") as http:
        for name in OUTSIDE:
            for place in places:
                reply = raw(http, "GET", place.format(name))
                assert reply.status_code in (400, 404), place.format(name)
                assert "root:" not in reply.text


def test_no_user_and_no_model_has_the_name_of_another_folder(served: Served, behind: Client) -> None:
    before = files(behind.settings.data_dir)
    with served.http("root") as http:
        for name in NAMES:
            assert http.post("/v1/users", json={"name": name, "role": "user"}).status_code == 400
            assert http.post("/v1/models", json={"source": "/etc", "name": name}).status_code == 400
    assert files(behind.settings.data_dir) == before


def test_a_job_lies_where_its_number_says_whatever_its_name(served: Served, behind: Client) -> None:
    space = Space((Axis("layer", {"layer": range(2)}),), {"prompt": "the cat", "answer": "Paris", "position": 0})
    body: dict[str, Any] = {"model": toy.NAME, "graph": graph_to_json(toy.reading()), "space": space.to_json()}
    with served.http("ada") as http:
        replies = [http.post("/v1/jobs", json=body | {"name": name}) for name in NAMES]
    queued = [reply.json()["id"] for reply in replies if reply.is_success]
    assert len(queued) > len(NAMES) // 2
    for job in queued:
        assert behind.job(job).record.store.resolve() == behind.settings.archive.resolve() / "ada" / f"{job}.zarr"


def test_no_link_inside_of_an_archive_is_followed(served: Served, done: JobHandle, tmp_path: Path) -> None:
    (secret := tmp_path / "secret").write_text("secret")
    store = done.record.store
    (store / "file").symlink_to(secret)
    (store / "relative").symlink_to("../../../secret")
    (store / "folder").symlink_to(tmp_path)
    (store / "residual" / "inner").symlink_to(secret)
    (store / "dangling").symlink_to(tmp_path / "none")
    with served.http("ada") as http:
        for name in ("file", "relative", "folder", "folder/secret", "folder/", "residual/inner", "dangling"):
            reply = http.get(f"/v1/archive/{done.id}/{name}")
            assert (reply.status_code, "secret" in reply.text.replace(name, "")) == (404, False), name


def test_an_archive_that_is_a_link_itself_is_not_read(served: Served, done: JobHandle, tmp_path: Path) -> None:
    store = done.record.store
    moved = store.rename(tmp_path / "elsewhere")
    store.symlink_to(moved)
    with served.http("ada") as http:
        assert http.get(f"/v1/archive/{done.id}/zarr.json").status_code == 404
        assert http.get(f"/v1/archive/{done.id}/").status_code == 404


def test_what_is_no_plain_file_is_not_read(served: Served, done: JobHandle) -> None:
    os.mkfifo(done.record.store / "pipe")
    with served.http("ada") as http:
        assert http.get(f"/v1/archive/{done.id}/pipe").status_code == 404
