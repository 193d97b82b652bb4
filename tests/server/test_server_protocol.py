"""How requests are answered: problems, pages, tags, keys, limits, the frozen document, metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from pydantic import SecretStr, TypeAdapter

from ndif_batch.client import Client, JobHandle
from ndif_batch.errors import GraphError, TaskError, UsageError
from ndif_batch.graph.serialize import graph_to_json
from ndif_batch.queue import api
from ndif_batch.queue.api import Api, Submission
from ndif_batch.queue.cluster import Cost, Role
from ndif_batch.queue.http import ENDPOINTS
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.store import Queue
from ndif_batch.server.access import CallerQueue
from ndif_batch.server.app import create_app, document
from ndif_batch.server.gate import MOST_BYTES, MOST_DEPTH, check_json
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task
from tests import toy
from tests.server.serving import Served
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
SPACE = Space((Axis("layer", {"layer": range(2)}),), {"prompt": "the cat sat", "answer": "Paris", "position": 0})
SUBMISSION: dict[str, Any] = {"model": toy.NAME, "graph": graph_to_json(toy.reading()), "space": SPACE.to_json()}


def test_the_document_is_the_one_that_is_kept(behind: Client) -> None:
    assert json.loads(DOCUMENT.read_text()) == document(create_app(behind.queue, behind.settings))


def test_every_method_of_the_api_has_a_route_and_an_answer() -> None:
    methods = {name for name in dir(Api) if not name.startswith("_")}
    assert methods - set(ENDPOINTS) == {"open_results"}
    for name in ENDPOINTS:
        assert callable(getattr(CallerQueue, name))


def test_an_answer_has_the_form_that_the_document_promises(served: Served, done: JobHandle) -> None:
    text = json.loads(DOCUMENT.read_text())
    needed: dict[str, dict[str, str | int]] = {
        "/v1/results": {"job_ids": done.id},
        "/v1/pilots/newest": {"models": toy.NAME, "ended": 1},
    }
    with served.http("root") as http:
        for path, operations in text["paths"].items():
            if "get" not in operations or path.startswith(("/metrics", "/v1/archive", "/v1/openapi")):
                continue
            url = path.format(job_id=done.id, name="ada" if "users" in path else toy.NAME)
            reply = http.get(url, params=needed.get(path))
            schema = operations["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            Draft202012Validator({**schema, "components": text["components"]}).validate(reply.json())


@pytest.mark.parametrize(
    ("verb", "path", "status", "code"),
    [
        ("GET", "/v1/jobs/9", 404, "not_found"),
        ("GET", "/v1/jobs/x", 400, "usage"),
        ("GET", "/v1/jobs/99999999999999999999", 400, "usage"),
        ("GET", "/v1/jobs?limit=0", 400, "usage"),
        ("GET", "/v1/jobs?limit=1001", 400, "usage"),
        ("GET", "/v1/jobs?state=GONE", 400, "usage"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("PATCH", "/v1/jobs", 405, "usage"),
        ("POST", "/v1/jobs/1/retry", 409, "conflict"),
        ("POST", "/v1/jobs", 400, "usage"),
    ],
)
def test_an_error_is_a_problem_with_its_code(
    served: Served, done: JobHandle, verb: str, path: str, status: int, code: str
) -> None:
    with served.http("ada") as http:
        reply = http.request(verb, path)
    problem = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"urn:ndif-batch:{code}")
    assert problem["detail"]


def test_a_wrong_graph_is_refused_by_the_server_and_names_its_node(served: Served) -> None:
    graph = json.loads(json.dumps(SUBMISSION["graph"]))
    graph["nodes"][1]["op"] = "open"
    api = served.api("ada")
    with pytest.raises(GraphError, match="open") as caught:
        api.submit(Submission(model=toy.NAME, graph=graph, space=SUBMISSION["space"]))
    assert caught.value.node == 1
    api.close()


@pytest.mark.parametrize(
    "change",
    [
        {"space": {}},
        {"space": {"axes": [{"name": "layer"}], "constants": {}}},
        {"space": {"axes": 7, "constants": {}}},
        {"space": {"axes": [], "constants": {"prompt": {"file": "/etc/passwd"}}}},
        {"space": {"axes": [], "constants": {"prompt": {"tensor": []}}}},
        {"space": {"axes": [], "constants": {"prompt": {"tensor": {}}}}},
        {"space": {"axes": [], "constants": {"prompt": [[1], {}], "layer": 0, "position": 0, "answer": 1}}},
        {"space": {"axes": [], "constants": {"prompt": "the", "layer": [{}], "position": 0, "answer": 1}}},
        {"space": {"axes": [{"name": [], "columns": {"layer": [0]}}], "constants": {}}},
        {"space": {"axes": [{"name": "a", "columns": {"layer": {"range": [0, 1, 0]}}}], "constants": {}}},
        {"space": {"axes": [{"name": "a", "columns": {"layer": {"range": [0, 10**12, 1]}}}], "constants": {}}},
        {"space": {"axes": [{"name": "a", "columns": {"layer": {"range": "x"}}}], "constants": {}}},
        {"space": {"axes": [{"name": "a", "columns": {"layer": [[[]]]}}], "constants": {}}},
        {"space": {"axes": [{"name": "a", "columns": {"layer": 5}}], "constants": {}}},
        {"space": {"axes": [{"name": "a", "columns": []}], "constants": []}},
        {"seed": 10**30},
        {"priority": -(10**30)},
        {"name": 5},
        {"name": "a\0b"},
        {"graph": {}},
        {"graph": []},
        {"archive": "/etc"},
        {"user": "bob"},
        {"layout": "wide"},
        {"verify_fraction": 2},
        {"max_retries": -1},
        {"model": "../toy"},
    ],
)
def test_a_wrong_submission_is_refused_and_nothing_is_queued(
    served: Served, behind: Client, change: dict[str, Any]
) -> None:
    with served.http("ada") as http:
        reply = http.post("/v1/jobs", json=SUBMISSION | change)
    assert reply.status_code in (400, 404)
    assert reply.json()["code"] != "error"
    assert behind.jobs() == []


def test_a_repeated_submission_with_a_key_is_one_job(served: Served, behind: Client) -> None:
    with served.http("ada") as http:
        replies = [http.post("/v1/jobs", json=SUBMISSION, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        replies.append(http.post("/v1/jobs", json=SUBMISSION | {"key": "k"}))
        assert [reply.json()["id"] for reply in replies] == [1, 1, 1]
        other = http.post("/v1/jobs", json=SUBMISSION | {"seed": 5}, headers={"Idempotency-Key": "k"})
        assert (other.status_code, other.json()["code"]) == (422, "key_reused")
        taken = http.post("/v1/jobs", json=SUBMISSION | {"seed": 5, "key": "k"})
        assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
        both = http.post("/v1/jobs", json=SUBMISSION | {"key": "a"}, headers={"Idempotency-Key": "b"})
        assert both.status_code == 400
    with served.http("bob") as http:
        assert http.post("/v1/jobs", json=SUBMISSION | {"key": "k"}).json()["id"] == 2


def test_every_post_may_have_a_key() -> None:
    paths = json.loads(DOCUMENT.read_text())["paths"]
    for path, operations in paths.items():
        headers = [one["name"] for one in operations.get("post", {}).get("parameters", ()) if one["in"] == "header"]
        assert headers == ([] if "post" not in operations or path == "/v1/worker" else ["Idempotency-Key"]), path


def test_what_is_repeated_under_a_key_is_done_once(served: Served, behind: Client) -> None:
    wanted, key = {"user": "bob", "name": "laptop"}, {"Idempotency-Key": '"8e03978e-40d5"'}
    with served.http("root") as http:
        first, again = (http.post("/v1/tokens", json=wanted, headers=key) for _ in range(2))
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == {"record": first.json()["record"], "text": ""}
        assert [one.name for one in behind.queue.tokens("bob")].count("laptop") == 1
        unquoted = http.post("/v1/tokens", json=wanted | {"scopes": None}, headers={"Idempotency-Key": "8e03978e-40d5"})
        assert unquoted.json() == again.json()
        other = http.post("/v1/tokens", json=wanted | {"name": "desk"}, headers=key)
        assert (other.status_code, other.json()["code"]) == (422, "key_reused")
        elsewhere = http.post("/v1/users", json={"name": "zoe", "role": "user"}, headers=key)
        assert (elsewhere.status_code, elsewhere.json()["code"]) == (422, "key_reused")
        wrong = http.post("/v1/tokens", json=wanted, headers={"Idempotency-Key": "x" * 201})
        assert (wrong.status_code, wrong.json()["code"]) == (400, "usage")
    with served.http("ada") as http:
        assert http.post("/v1/logins", headers=key).json()["text"]
        assert http.post("/v1/logins", headers=key).json()["text"] == ""
        refused = http.post("/v1/tokens", json=wanted, headers={"Idempotency-Key": "mine"})
        assert refused.status_code == 403


def test_a_request_whose_first_is_not_yet_answered_is_a_conflict(
    served: Served, behind: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"Idempotency-Key": "k"}
    began, goes_on = Event(), Event()

    def slowly(queue: CallerQueue, model: str | None = None, *, actor: str) -> None:
        began.set()
        assert goes_on.wait(60)

    monkeypatch.setattr(CallerQueue, "pause", slowly)
    with served.http("root") as http, ThreadPoolExecutor(1) as another:
        first = another.submit(http.post, "/v1/pause", json={}, headers=key)
        assert began.wait(60)
        with served.http("root") as beside:
            now = beside.post("/v1/pause", json={}, headers=key)
        goes_on.set()
        assert (now.status_code, now.json()["code"]) == (409, "conflict")
        assert first.result().status_code == 200


def test_pages_follow_one_another_by_their_links(served: Served, behind: Client) -> None:
    for seed in range(5):
        submit(behind, seed=seed)
    with served.http("ada") as http:
        pages = [[job["id"] for job in page] for page in followed(http, "/v1/jobs?limit=2")]
    assert pages == [[5, 4], [3, 2], [1]]


def followed(http: httpx.Client, path: str | None) -> Iterator[list[Any]]:
    """The pages of a listing."""
    while path is not None:
        page = http.get(path)
        yield page.json()
        path = page.links.get("next", {}).get("url")


def test_events_and_failures_have_pages_too(served: Served, behind: Client) -> None:
    def breaks(task: Task) -> None:
        raise TaskError("boom")

    job = submit(behind)
    with working(behind, ToyEngine(breaks)) as worker:
        worker.run()
    with served.http("ada") as http:
        story = list(followed(http, f"/v1/events?job_id={job.id}&limit=5"))
        assert [event["id"] for page in reversed(story) for event in page] == [one.id for one in job.events(1000)]
        assert max(map(len, story)) == 5
        failures = list(followed(http, f"/v1/jobs/{job.id}/failures?limit=5"))
    assert [[one["task"] for one in page] for page in failures] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_every_long_listing_has_pages(served: Served, behind: Client) -> None:
    queue = behind.queue
    job = submit(behind)
    for number in range(3):
        queue.register_worker(toy.NAME, "n", number)
        queue.add_pilot(f"p{number}", toy.NAME, "local", {}, actor="test")
    lease = queue.lease(1, toy.NAME, 1000, 60.0)
    assert queue.commit([Finished(one.shard.id, one.shard.epoch, cost=Cost(1.0, 7)) for one in lease])
    hours = [f"2026-01-01 0{hour}:00:00.000000" for hour in range(2)]
    with queue._database.write() as tx:
        rows = [f"('{name}', '{hour}', 1, 1, 0)" for hour in hours for name in ("ada", "bob", "root")]
        tx.connection.exec_driver_sql(f"INSERT INTO usage VALUES {', '.join(rows)}")
    ids = [one.id for one in queue.workers()]
    listings: dict[str, Sequence[Any]] = {
        f"/v1/jobs/{job.id}/shards?": queue.shards(job.id),
        "/v1/workers?": queue.workers(),
        f"/v1/workers?ids={ids[0]}&ids={ids[1]}&ids={ids[2]}&": queue.workers(),
        "/v1/pilots?active=false&": queue.pilots(active=False),
        f"/v1/pilots/newest?models={toy.NAME}&": queue.newest_pilots([toy.NAME]),
        "/v1/users?": queue.users(),
        "/v1/tokens?": queue.tokens(),
        "/v1/usage?": queue.usage_of(),
        "/v1/usage?since=2026-01-01T01:00:00Z&": queue.usage_of(since=datetime(2026, 1, 1, 1, tzinfo=UTC)),
    }
    with served.http("root") as http:
        for path, every in listings.items():
            assert len(every) >= 3, path
            for limit in (1, 2, len(every)):
                pages = list(followed(http, f"{path}limit={limit}"))
                assert max(map(len, pages)) == limit
                kind = TypeAdapter[Any](type(every[0]))
                assert [kind.validate_python(one) for page in pages for one in page] == list(every), path
        assert "link" not in http.get("/v1/users").headers
    with served.http("bob") as http:
        assert [[user["name"] for user in page] for page in followed(http, "/v1/users?limit=1")] == [["bob"], []]
        assert {token["user"] for page in followed(http, "/v1/tokens?limit=1") for token in page} == {"bob"}


def test_the_client_follows_pages(behind: Client, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST", 2)
    for seed in range(5):
        submit(behind, seed=seed)
    for number in range(5):
        behind.queue.register_worker(toy.NAME, "n", number)
        behind.queue.add_pilot(f"p{number}", toy.NAME, "local", {}, actor="test")
    behind.queue.set_role("ada", Role.ADMIN, actor="test")
    token = SecretStr(behind.queue.create_token("ada", actor="test").text)
    with Client(behind.settings.model_copy(update={"url": served.url, "token": token})) as client:
        assert [job.id for job in client.jobs()] == [5, 4, 3, 2, 1]
        assert [job.id for job in client.jobs(limit=3)] == [5, 4, 3]
        for name in ("shards", "workers", "pilots", "newest_pilots", "users", "tokens", "usage_of"):
            arguments = {"shards": (5,), "newest_pilots": ([toy.NAME],)}.get(name, ())
            everything = getattr(behind.queue, name)(*arguments)
            assert len(everything) > 2 or name == "usage_of"
            assert getattr(client.service, name)(*arguments) == everything, name
            assert len(getattr(client.service, name)(*arguments, limit=1)) <= 1
        job = client.job(5)
        for _ in range(2):
            job.hold().release()
        assert [str(event.kind) for event in job.events()] == ["job.submitted", *["job.held", "job.released"] * 2]


def test_an_answer_that_has_not_changed_is_not_sent_again(served: Served, behind: Client) -> None:
    job = submit(behind)
    with served.http("ada") as http:
        first = http.get(f"/v1/jobs/{job.id}")
        tag = {"If-None-Match": first.headers["etag"]}
        same = http.get(f"/v1/jobs/{job.id}", headers=tag)
        assert (same.status_code, same.content) == (304, b"")
        job.hold()
        assert http.get(f"/v1/jobs/{job.id}", headers=tag).json()["state"] == "HELD"


def test_what_is_asked_again_and_again_has_a_tag(served: Served, done: JobHandle) -> None:
    needed: dict[str, dict[str, str | int]] = {"/v1/results": {"job_ids": done.id}}
    untagged = {"/metrics", "/healthz"}
    with served.http("root") as http:
        for path, operations in json.loads(DOCUMENT.read_text())["paths"].items():
            if "get" not in operations:
                continue
            name = "ada" if "users" in path else "zarr.json" if "archive" in path else toy.NAME
            url, query = path.format(job_id=done.id, name=name), needed.get(path)
            tag = http.get(url, params=query).headers.get("etag")
            assert (tag is None) == (path in untagged), path
            if tag is None or path in ("/v1/backlog", "/v1/models/{name}/speed"):
                continue
            for known in (tag, f'"other", W/{tag}', "*"):
                same = http.get(url, params=query, headers={"If-None-Match": known})
                assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag), path
            assert http.get(url, params=query, headers={"If-None-Match": '"other"'}).status_code == 200
        folder = f"/v1/archive/{done.id}/"
        assert http.get(folder, headers={"If-None-Match": http.get(folder).headers["etag"]}).status_code == 304


def test_a_body_that_is_too_large_or_too_deep_is_refused(served: Served) -> None:
    with served.http("ada") as http:
        large = http.post("/v1/jobs", content=b" " * (MOST_BYTES + 1))
        assert (large.status_code, large.json()["code"]) == (413, "usage")
        parts = http.post("/v1/jobs", content=(b" " * 2**20 for _ in range(MOST_BYTES // 2**20 + 1)))
        assert parts.status_code == 413
        deep = http.post("/v1/jobs", content=b"[" * 100_000)
        assert (deep.status_code, "arrays and objects deep" in deep.json()["detail"]) == (400, True)
        numbers = http.post("/v1/jobs", content=json.dumps(SUBMISSION | {"seed": float("nan")}))
        assert (numbers.status_code, "numbers that JSON does not have" in numbers.json()["detail"]) == (400, True)


def test_a_body_up_to_the_limit_is_taken(served: Served) -> None:
    call = json.dumps({"call": "has_work", "model": toy.NAME}).encode()
    with served.http("walt") as http:
        reply = http.post("/v1/worker", content=call.ljust(MOST_BYTES))
    assert reply.json() == {"answer": False}


def test_nobody_s_body_is_not_even_read(served: Served) -> None:
    with served.http() as http:
        assert http.post("/v1/jobs", content=b"[" * 100_000).status_code == 401


def test_brackets_and_words_inside_of_strings_do_not_count() -> None:
    check_json(json.dumps({"a": "[" * 500 + '\\"NaN' + "{" * 500}).encode())
    check_json(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH)
    with pytest.raises(UsageError, match=f"{MOST_DEPTH + 1} arrays"):
        check_json(b"[" * (MOST_DEPTH + 1))


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic YTpi", "Bearer ndif_1_x", "Bearer " + "é" * 9, "ndif_1_" + "a" * 43]
)
def test_what_is_no_token_opens_nothing(served: Served, header: str) -> None:
    with served.http() as http:
        reply = http.get("/v1/jobs", headers={b"Authorization": header.encode()})
        assert (reply.status_code, reply.json()["code"]) == (401, "not_authenticated")
        assert http.get("/v1/nothing").status_code == 401


def test_tokens_are_not_cached_beyond_their_end(served: Served, behind: Client) -> None:
    token = next(one for one in behind.queue.tokens("ada"))
    with served.http("ada") as http:
        assert http.get("/v1/me").json()["user"] == "ada"
        behind.queue.revoke_token(token.id, actor="test")
        assert http.get("/v1/me").status_code == 401


def test_metrics_count_jobs_tasks_and_workers_and_name_no_user(served: Served, done: JobHandle, behind: Client) -> None:
    submit(behind, seed=1)
    with served.http("rita") as http:
        text = http.get("/metrics").text
    lines = set(text.splitlines())
    assert 'ndif_batch_jobs{state="COMPLETED"} 1.0' in lines
    assert 'ndif_batch_jobs{state="PENDING"} 1.0' in lines
    assert 'ndif_batch_tasks{model="toy",state="DONE"} 12.0' in lines
    assert 'ndif_batch_tasks{model="toy",state="PENDING"} 12.0' in lines
    assert 'ndif_batch_workers{model="toy",state="STOPPED"} 1.0' in lines
    assert "ada" not in text


def test_a_database_that_is_gone_is_told_as_unavailable(served: Served, behind: Client) -> None:
    with served.http("ada") as http:
        assert http.get("/healthz").json() == {"status": "ok"}
        file = behind.settings.data_dir / "queue.db"
        Queue.close(behind.queue)
        file.write_bytes(b"no database")
        reply = http.get("/healthz")
        assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
