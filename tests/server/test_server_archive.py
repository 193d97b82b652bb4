"""Archives over HTTP: only the chunks that are needed, only one's own, and nothing beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
import zarr

from ndif_batch.archive import ArchiveSpec, ArraySpec, AxisSpec, TaskStatus, create, remove, write_shard
from ndif_batch.client import Client, JobHandle
from tests.server.serving import Served, serving

Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
TASKS, WIDTH, TILE = 8, 2**18, 4


@pytest.fixture
def port(behind: Client) -> Iterator[Served]:
    """A server at a loopback port, which any reader of Zarr can reach."""
    with serving(behind.queue, behind.settings, unix=False) as found:
        yield found


def large(job: JobHandle) -> Numbers:
    """Another archive in place of that of the job, two shards of random numbers with a chunk a task; the numbers."""
    axes = (AxisSpec("layer", {"layer": range(TASKS)}),)
    spec = ArchiveSpec(
        axes=axes, tile=(TILE,), arrays=(ArraySpec("residual", "float32", "float32", ("hidden",), (WIDTH,)),)
    )
    numbers = np.random.default_rng(0).random((TASKS, WIDTH), dtype=np.float32)
    store = job.record.store
    remove(store)
    create(store, spec)
    for first in range(0, TASKS, TILE):
        rows = list(numbers[first : first + TILE])
        write_shard(store, spec, first, {"residual": rows}, [TaskStatus.SAVED] * TILE)
    return numbers


def test_any_reader_of_zarr_opens_the_url_with_a_token(port: Served, done: JobHandle) -> None:
    headers = {"Authorization": f"Bearer {port.tokens['ada']}"}
    url = f"{port.url}/v1/archive/{done.id}"
    group = zarr.open_group(url, mode="r", storage_options={"headers": headers})
    expected = done.results()
    for name in expected:
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert np.array_equal(np.asarray(array[1:3, 2]), np.asarray(expected[name][1:3, 2]))
    assert sorted(group.array_keys()) == ["layer", "logit", "position", "residual", "task_status"]


def test_a_file_is_given_whole_in_ranges_and_not_again(served: Served, done: JobHandle) -> None:
    file = done.record.store / "residual" / "c.0.0.0"
    data, path = file.read_bytes(), f"/v1/archive/{done.id}/residual/c.0.0.0"
    with served.http("ada") as http:
        whole = http.get(path)
        assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, data, "bytes")
        for span, expected in {"0-3": data[:4], "4-": data[4:], "-5": data[-5:], "2-2": data[2:3]}.items():
            part = http.get(path, headers={"Range": f"bytes={span}"})
            assert (part.status_code, part.content) == (206, expected), span
        assert http.get(path, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
        head = http.head(path)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))
        same = http.get(path, headers={"If-None-Match": whole.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        file.write_bytes(data + b"more")
        assert http.get(path, headers={"If-None-Match": whole.headers["etag"]}).status_code == 200


def test_a_folder_lists_what_is_in_it(served: Served, done: JobHandle) -> None:
    (done.record.store / "residual" / ".c.0.0.0.host.1.00000000.tmp").write_bytes(b"half")
    with served.http("ada") as http:
        names = http.get(f"/v1/archive/{done.id}/").json()
        assert names == ["layer", "logit", "position", "residual", "task_status", "zarr.json"]
        shards = http.get(f"/v1/archive/{done.id}/residual/").json()
        assert shards == [*(f"c.{layer}.0.0" for layer in range(4)), "zarr.json"]


ODD = [
    "../../../queue.db",
    "..%2f..%2f..%2fqueue.db",
    "%2e%2e/%2e%2e/%2e%2e/queue.db",
    "residual/../../../../queue.db",
    "..%5c..%5cqueue.db",
    "/etc/passwd",
    "%2fetc/passwd",
    "%00",
    ".hidden",
    "link",
    "link/queue.db",
    "residual",
    "nothing",
    "zarr.json/x",
    "residual/" + "x" * 300,
]


@pytest.mark.parametrize("name", ODD)
def test_no_name_leads_out_of_the_archive(served: Served, done: JobHandle, name: str) -> None:
    (done.record.store / ".hidden").write_text("secret")
    (done.record.store / "link").symlink_to(Path(done.record.archive).parent)
    with served.http("ada") as http:
        request = httpx.Request("GET", f"http://test/v1/archive/{done.id}/x", headers=http.headers)
        request.url = httpx.URL("http://test").copy_with(raw_path=f"/v1/archive/{done.id}/{name}".encode())
        reply = http.send(request)
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


def test_results_that_were_removed_are_gone(served: Served, done: JobHandle) -> None:
    done.remove_results()
    with served.http("ada") as http:
        reply = http.get(f"/v1/archive/{done.id}/zarr.json")
    assert (reply.status_code, "were removed on" in reply.json()["detail"]) == (404, True)


def test_another_users_archive_is_not_there_whatever_its_number(served: Served, done: JobHandle) -> None:
    with served.http("bob") as http:
        for job in (str(done.id), f"0{done.id}", "99999999999999999999", "-1", "x"):
            assert http.get(f"/v1/archive/{job}/zarr.json").status_code in (400, 404)


def test_a_reader_of_zarr_reads_only_the_chunk_that_it_needs(port: Served, done: JobHandle) -> None:
    numbers = large(done)
    headers = {"Authorization": f"Bearer {port.tokens['ada']}"}
    url = f"{port.url}/v1/archive/{done.id}"
    array = zarr.open_group(url, mode="r", storage_options={"headers": headers})["residual"]
    assert isinstance(array, zarr.Array)
    before = sum(port.sent)
    assert np.array_equal(np.asarray(array[5, :10]), numbers[5, :10])
    assert numbers[0].nbytes * 0.5 < sum(port.sent) - before < numbers[0].nbytes * 1.5


def test_results_of_the_client_read_only_the_chunk_that_they_need(served: Served, done: JobHandle) -> None:
    numbers = large(done)
    api = served.api("ada")
    results = api.open_results(done.record)
    assert results is not None
    array, before = results["residual"], sum(served.sent)
    assert np.array_equal(np.asarray(array[5, :10]), numbers[5, :10])
    assert numbers[0].nbytes * 0.5 < sum(served.sent) - before < numbers[0].nbytes * 1.5
    api.close()
