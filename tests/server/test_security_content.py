"""What users write is data to everybody else: never a page, a script, a header or a line of somebody's log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ndif_batch.client import Client
from ndif_batch.errors import TaskError
from ndif_batch.graph.serialize import graph_to_json
from ndif_batch.server.access import CallerQueue
from ndif_batch.server.app import create_app, document
from ndif_batch.sweep.space import Axis, Space
from ndif_batch.sweep.task import Task
from tests import toy
from tests.server.serving import Served, serving
from tests.waiting import until
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import working

SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
LINES = "a\r\nSet-Cookie: b=c\r\n\r\n<html>"
EVIL = (SCRIPT, LINES, "</script>{{7*7}}${7*7}", "javascript:alert(1)")
JSON = ("application/json", "application/problem+json")


@dataclass(frozen=True)
class Scene:
    """A server whose every text that a user may choose is a script, and a job that failed with one."""

    served: Served
    behind: Client
    job: int


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("content")
    with toy.client(root) as behind, serving(behind.queue, behind.settings) as served:
        axes = (Axis("layer", {"layer": range(2)}), Axis("prompt", {"prompt": [SCRIPT, LINES]}))
        space = Space(axes, {"answer": "Paris", "position": 0}).to_json()
        body = {"model": toy.NAME, "graph": graph_to_json(toy.reading()), "space": space, "name": SCRIPT, "key": LINES}
        with served.http("ada") as http:
            reply = http.post("/v1/jobs", json=body | {"resources": {SCRIPT: SCRIPT}})
        job: int = reply.json()["id"]

        def breaks(task: Task) -> None:
            raise TaskError(SCRIPT + LINES)

        with working(behind, ToyEngine(breaks)) as worker:
            worker.run()
        behind.queue.create_token("ada", SCRIPT, actor=SCRIPT)
        behind.queue.set_settings({SCRIPT: LINES}, actor=SCRIPT)
        yield Scene(served, behind, job)


def harmless(reply: httpx.Response) -> None:
    """No browser takes the answer for anything but data."""
    kind = reply.headers["content-type"].split(";")[0]
    assert kind in (*JSON, "text/plain", "application/octet-stream"), reply.url
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert "set-cookie" not in reply.headers
    assert "access-control-allow-origin" not in reply.headers


def test_every_answer_is_data_and_says_so(scene: Scene) -> None:
    paths: dict[str, Any] = document(create_app(scene.behind.queue, scene.behind.settings))["paths"]
    needed: dict[str, dict[str, str | int]] = {
        "/v1/results": {"job_ids": scene.job},
        "/v1/pilots/newest": {"models": toy.NAME, "ended": 1},
    }
    with scene.served.http("root") as http:
        for path in (path for path, verbs in paths.items() if "get" in verbs):
            name = "ada" if "/users/" in path else "zarr.json" if "/archive/" in path else toy.NAME
            reply = http.get(path.format(job_id=scene.job, name=name), params=needed.get(path))
            assert reply.status_code == 200, path
            harmless(reply)


def test_names_that_are_part_of_a_path_or_a_page_have_rules_of_their_own(scene: Scene) -> None:
    graph = json.dumps(graph_to_json(toy.reading()))
    named = json.loads(graph.replace('"residual"', json.dumps(SCRIPT)))
    space = {"axes": [], "constants": {"prompt": "the", "layer": 0, "position": 0, "answer": 1}}
    axis = {"name": SCRIPT, "columns": {"layer": [0, 1]}}
    with scene.served.http("ada") as http:
        for body in (
            {"model": toy.NAME, "graph": named, "space": space},
            {"model": toy.NAME, "graph": json.loads(graph), "space": {**space, "axes": [axis]}},
        ):
            reply = http.post("/v1/jobs", json=body)
            assert reply.status_code == 400
            harmless(reply)


def test_what_was_stored_comes_back_as_it_was(scene: Scene) -> None:
    with scene.served.http("root") as http:
        job = http.get(f"/v1/jobs/{scene.job}").json()
        assert (job["name"], job["key"]) == (SCRIPT, LINES)
        failures = http.get(f"/v1/jobs/{scene.job}/failures").json()
        assert failures[0]["message"] == SCRIPT + LINES
        assert http.get("/v1/settings").json() == {SCRIPT: LINES}
        assert SCRIPT in [token["name"] for token in http.get("/v1/tokens").json()]


@pytest.mark.parametrize("evil", EVIL)
def test_what_is_asked_for_is_reflected_as_data(scene: Scene, evil: str) -> None:
    inside = quote(evil, safe="")
    with scene.served.http("root") as http:
        for path in (
            f"/v1/{inside}",
            f"/v1/jobs/{inside}",
            f"/v1/models/{inside}",
            f"/v1/users/{inside}",
            f"/v1/archive/{scene.job}/{inside}",
            f"/v1/archive/{scene.job}/{inside}/",
            f"/v1/jobs?state={inside}",
            f"/v1/jobs?user={inside}&limit=1",
            f"/{inside}",
        ):
            harmless(http.get(path))
        for method, path in (("POST", f"/v1/pilots/{inside}/kill"), ("PUT", f"/v1/constants/{inside}")):
            harmless(http.request(method, path))
        harmless(http.get("/v1/jobs", headers={"X-Evil": evil.replace("\r\n", " "), "Origin": "https://evil.example"}))


def test_the_link_to_the_next_page_holds_what_was_asked_in_one_piece(scene: Scene) -> None:
    with scene.served.http("root") as http:
        reply = http.get("/v1/events", params={"limit": 1})
        assert reply.links["next"]["url"].startswith("/v1/events?limit=1&before=")
        harmless(reply)
        harmless(http.get("/v1/jobs", params={"user": 'a>; rel="next", <https://evil.example', "limit": 1}))


def test_the_metrics_and_the_log_of_a_server_hold_no_line_of_a_user(scene: Scene) -> None:
    with scene.served.http("root") as http:
        assert "<script>" not in http.get("/metrics").text
        http.post(f"/v1/jobs/{quote(LINES, safe='')}/cancel")
        answered = http.post(f"/v1/jobs/{scene.job}/cancel")

    def told() -> list[Any]:
        return [entry for entry in scene.served.logs if entry["event"] == "request"]

    until(lambda: any(entry.get("job") == scene.job for entry in told()), "what is told of the last request")
    assert all(str(entry["path"]).isprintable() for entry in told())
    assert [entry["status"] for entry in told() if entry.get("job") == scene.job] == [answered.status_code] == [409]
    assert "x-request-id" in answered.headers


class TestOtherSites:
    """A page of another site can make a browser send requests; it has no token, and gets no answer to read."""

    def test_what_a_form_can_send_does_nothing(self, scene: Scene) -> None:
        headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Cookie": "token=x; session=y"}
        kinds = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "text/plain")
        with scene.served.http() as http:
            for kind in kinds:
                for path in ("/v1/pause", f"/v1/jobs/{scene.job}/cancel", "/v1/tokens"):
                    reply = http.post(path, content=b'{"user": "ada"}', headers={**headers, "Content-Type": kind})
                    assert reply.status_code == 401
                    harmless(reply)
        assert "pause" not in scene.behind.queue.settings()

    @pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""])
    def test_a_body_that_does_not_say_that_it_is_json_is_none(self, scene: Scene, kind: str) -> None:
        with scene.served.http("root") as http:
            reply = http.post("/v1/tokens", content=b'{"user": "ada"}', headers={"Content-Type": kind})
        assert (reply.status_code, reply.json()["code"]) == (400, "usage")

    def test_no_other_site_is_told_that_it_may(self, scene: Scene) -> None:
        ask = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        for who in (None, "root"):
            with scene.served.http(who) as http:
                reply = http.options("/v1/pause", headers=ask)
            assert reply.status_code in (401, 405)
            harmless(reply)

    def test_a_token_is_taken_from_the_header_alone(self, scene: Scene) -> None:
        token = scene.served.tokens["root"]
        with scene.served.http() as http:
            for query, headers in (
                ({"token": token, "access_token": token}, {}),
                ({}, {"Cookie": f"token={token}; Authorization=Bearer {token}"}),
                ({}, {"Authorization": f"Basic {token}"}),
            ):
                assert http.get("/v1/me", params=query, headers=headers).status_code == 401


def test_a_token_is_never_in_an_answer_but_that_of_its_making(scene: Scene) -> None:
    secrets = [token.split("_", 2)[2] for token in scene.served.tokens.values()]
    with scene.served.http("root") as http:
        for path in ("/v1/tokens", "/v1/events?limit=1000", "/v1/settings", "/metrics", "/v1/me"):
            text = http.get(path).text
            assert not [secret for secret in secrets if secret in text], path


def test_no_file_of_the_server_s_host_is_in_an_error(scene: Scene) -> None:
    with scene.served.http("ada") as http:
        for path in ("/v1/jobs/99", f"/v1/archive/{scene.job}/nothing", "/v1/models/none"):
            assert str(Path(scene.behind.settings.data_dir)) not in http.get(path).text


def test_what_breaks_inside_is_a_problem_without_its_reason(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: object) -> None:
        raise RuntimeError(SCRIPT)

    with monkeypatch.context() as patch, scene.served.http("root") as http:
        patch.setattr(CallerQueue, "backlog", breaks)
        reply = http.get("/v1/backlog")
    assert (reply.status_code, reply.json()["code"]) == (500, "error")
    assert "script" not in reply.text
    harmless(reply)
