"""Who may do what: every route, tried by nobody, another user, a reader, its user, a worker and an administrator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.routing import APIRoute

from ndif_batch import blobs
from ndif_batch.client import Client
from ndif_batch.graph.serialize import graph_to_json
from ndif_batch.queue.records import JobState
from ndif_batch.server.app import create_app, document
from ndif_batch.sweep.space import Axis, Space
from tests import toy
from tests.server.serving import Served, serving
from tests.worker.toy_engine import ToyEngine
from tests.worker.working import submit, working

COLUMNS = ("nobody", "other", "reader", "owner", "worker", "admin")
AS = {"nobody": None, "other": "bob", "reader": "rita", "owner": "ada", "worker": "walt", "admin": "root"}

SPACE = Space((Axis("layer", {"layer": range(2)}),), {"prompt": "the cat sat", "answer": "Paris", "position": 0})
SUBMISSION = {"model": toy.NAME, "graph": graph_to_json(toy.reading()), "space": SPACE.to_json()}
TENSOR = blobs.encode(np.zeros(3, np.float32))


@dataclass(frozen=True)
class Row:
    """A request and the status that each of ``COLUMNS`` gets.

    ``{done}`` is Ada's completed job, ``{held}`` one on hold, ``{waiting}`` one that waits, ``{token}`` her token's id.
    """

    statuses: tuple[int, ...]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    content: bytes | None = None


def row(*statuses: int, **more: Any) -> Row:
    return Row(statuses, **more)


READ = (401, 200, 200, 200, 403, 200)
OWN = (401, 404, 200, 200, 403, 200)
SEES_ALL = (401, 403, 200, 403, 403, 200)
CHANGE = (401, 404, 403, 200, 403, 200)
ADMIN = (401, 403, 403, 403, 403, 200)

TABLE: Mapping[str, Row] = {
    "GET /healthz": row(200, 200, 200, 200, 200, 200),
    "GET /metrics": row(*SEES_ALL),
    "GET /v1/openapi.json": row(401, 200, 200, 200, 200, 200),
    "GET /v1/me": row(*READ),
    "GET /v1/models": row(*READ),
    "POST /v1/models": row(401, 403, 403, 403, 403, 400, body={"source": "/nowhere", "name": "../new"}),
    "DELETE /v1/models/{name}": row(401, 403, 403, 403, 403, 409),
    "POST /v1/models/{name}/load": row(*ADMIN),
    "PUT /v1/models/{name}/pin": row(*ADMIN, body={"pilots": 1}),
    "POST /v1/models/{name}/evict": row(*ADMIN),
    "GET /v1/models/{name}": row(*READ),
    "GET /v1/models/{name}/entry": row(*READ),
    "GET /v1/models/{name}/speed": row(*READ),
    "GET /v1/jobs": row(401, 403, 200, 200, 403, 200, query={"user": "ada"}),
    "POST /v1/jobs": row(401, 200, 403, 200, 403, 200, body=SUBMISSION),
    "POST /v1/reusable": row(*READ, body=SUBMISSION),
    "POST /v1/earlier": row(*READ, body=SUBMISSION),
    "GET /v1/jobs/{job_id}": row(*OWN),
    "GET /v1/jobs/{job_id}/shards": row(*OWN),
    "GET /v1/jobs/{job_id}/failures": row(*OWN),
    "GET /v1/jobs/{job_id}/verified": row(*OWN),
    "GET /v1/jobs/{job_id}/damage": row(*OWN),
    "POST /v1/jobs/{job_id}/cancel": row(*CHANGE),
    "POST /v1/jobs/{job_id}/hold": row(*CHANGE),
    "POST /v1/jobs/{job_id}/release": row(*CHANGE),
    "POST /v1/jobs/{job_id}/retry": row(401, 404, 403, 409, 403, 409),
    "PUT /v1/jobs/{job_id}/priority": row(*CHANGE, body={"priority": -1}),
    "POST /v1/jobs/{job_id}/recompute": row(401, 404, 403, 404, 403, 404, body={"count": 1}),
    "DELETE /v1/jobs/{job_id}/results": row(*CHANGE),
    "GET /v1/results": row(*OWN, query={"job_ids": "{done}"}),
    "GET /v1/archive/{job_id}/{name}": row(*OWN),
    "GET /v1/events": row(*OWN, query={"job_id": "{done}"}),
    "GET /v1/workers": row(*READ),
    "POST /v1/workers/{worker_id}/drain": row(*ADMIN),
    "GET /v1/pilots": row(*READ),
    "GET /v1/pilots/newest": row(*READ, query={"models": toy.NAME, "ended": 1}),
    "GET /v1/backlog": row(*READ),
    "POST /v1/pilots/{name}/drain": row(401, 403, 403, 403, 403, 404),
    "POST /v1/pilots/{name}/kill": row(401, 403, 403, 403, 403, 404),
    "GET /v1/users": row(*READ),
    "POST /v1/users": row(*ADMIN, body={"name": "new", "role": "user"}),
    "GET /v1/users/{name}": row(*OWN),
    "PUT /v1/users/{name}/role": row(*ADMIN, body={"role": "user"}),
    "PUT /v1/users/{name}/shares": row(*ADMIN, body={"shares": 2}),
    "PUT /v1/users/{name}/quotas": row(*ADMIN, body={"pending_tasks": 10000}),
    "GET /v1/usage": row(401, 403, 200, 200, 403, 200, query={"name": "ada"}),
    "GET /v1/running-shards": row(*READ),
    "GET /v1/tokens": row(401, 403, 403, 200, 403, 200, query={"user": "ada"}),
    "POST /v1/tokens": row(*ADMIN, body={"user": "ada"}),
    "POST /v1/logins": row(*READ),
    "DELETE /v1/tokens/{token_id}": row(401, 404, 403, 200, 403, 200),
    "GET /v1/settings": row(*READ),
    "PUT /v1/settings": row(*ADMIN, body={"changes": {"half_life_hours": 3}}),
    "POST /v1/pause": row(*ADMIN, body={}),
    "POST /v1/resume": row(*ADMIN, body={}),
    "PUT /v1/constants/{digest}": row(401, 204, 403, 204, 403, 204, content=TENSOR),
    "POST /v1/worker": row(401, 403, 403, 403, 200, 200, body={"call": "has_work", "model": toy.NAME}),
}

LEAVES_EQUAL = {
    "POST /v1/jobs/{job_id}/release": "{held}",
    "POST /v1/jobs/{job_id}/hold": "{waiting}",
    "POST /v1/jobs/{job_id}/cancel": "{waiting}",
    "PUT /v1/jobs/{job_id}/priority": "{waiting}",
    "POST /v1/jobs/{job_id}/recompute": "{waiting}",
}


@dataclass(frozen=True)
class Scene:
    """A server and the numbers of what there is."""

    served: Served
    behind: Client
    numbers: dict[str, Any]

    def status(self, request: str, who: str) -> int:
        """What one of ``COLUMNS`` gets for a row of the table."""
        verb, _, template = request.partition(" ")
        row = TABLE[request]
        job = LEAVES_EQUAL.get(request, "{done}").format_map(self.numbers)
        name = toy.NAME if "/models/" in request else "ada" if "/users/" in request else "zarr.json"
        token = self.numbers["token"]
        path = template.format(job_id=job, worker_id=1, name=name, token_id=token, digest=blobs.digest(TENSOR))
        query = {key: str(value).format_map(self.numbers) for key, value in row.query.items()}
        with self.served.http(AS[who]) as http:
            return http.request(verb, path, params=query, json=row.body, content=row.content).status_code


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with toy.client(tmp_path) as behind, serving(behind.queue, behind.settings) as served:
        done = submit(behind)
        with working(behind, ToyEngine()) as worker:
            worker.run()
        numbers: dict[str, Any] = {"done": done.id}
        numbers["held"] = submit(behind, hold=True, seed=1).id
        numbers["waiting"] = submit(behind, seed=2).id
        numbers["token"] = behind.queue.create_token("ada", actor="test").record.id
        yield Scene(served, behind, numbers)


def test_every_route_has_a_row_and_every_row_a_route(behind: Client) -> None:
    paths = document(create_app(behind.queue, behind.settings))["paths"]
    routes = {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}
    assert routes == set(TABLE)


def test_no_route_is_left_out_of_the_document(behind: Client) -> None:
    app = create_app(behind.queue, behind.settings)
    known = {(verb.upper(), path) for path, verbs in document(app)["paths"].items() for verb in verbs}
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert len(routes) == len(app.routes)
    found = {(verb, route.path.replace(":path}", "}")) for route in routes for verb in route.methods or ()}
    assert found - {("HEAD", "/v1/archive/{job_id}/{name}")} == known


@pytest.mark.parametrize("request_line", sorted(TABLE))
def test_who_may_do_what(scene: Scene, request_line: str) -> None:
    """Those who may not come first: what they tried must not have happened when the owner does it."""
    for who, expected in zip(COLUMNS[:3], TABLE[request_line].statuses, strict=False):
        assert scene.status(request_line, who) == expected, who
    assert scene.status(request_line, "worker") == TABLE[request_line].statuses[4]
    assert scene.status(request_line, "owner") == TABLE[request_line].statuses[3]


@pytest.mark.parametrize("request_line", sorted(TABLE))
def test_an_administrator_may_do_it_for_others(scene: Scene, request_line: str) -> None:
    assert scene.status(request_line, "admin") == TABLE[request_line].statuses[5]


def test_what_the_others_tried_has_not_happened(scene: Scene) -> None:
    before = [scene.behind.queue.job(scene.numbers[job]).state for job in ("done", "held", "waiting")]
    for request in TABLE:
        if not request.startswith("GET"):
            for who in ("nobody", "reader", "worker"):
                scene.status(request, who)
            if "{job_id}" in request or "{token_id}" in request:
                scene.status(request, "other")
    after = [scene.behind.queue.job(scene.numbers[job]).state for job in ("done", "held", "waiting")]
    assert after == before == [JobState.COMPLETED, JobState.HELD, JobState.PENDING]
    assert scene.behind.queue.token(scene.numbers["token"]).revoked_at is None
    assert scene.behind.queue.settings() == {}
    assert scene.behind.job(scene.numbers["done"]).results().verify() == []


def test_a_user_is_told_of_nobody_else(scene: Scene) -> None:
    bob = scene.served.api("bob")
    assert bob.jobs() == []
    assert [user.name for user in bob.users()] == ["bob"]
    assert {token.user for token in bob.tokens()} == {"bob"}
    assert bob.usage_of() == []
    assert bob.running_shards() == {}
    assert [set(one.tokens) for one in bob.backlog().values()] == [{"(others)"}]
    assert [set(one.tokens) for one in scene.served.api("ada").backlog().values()] == [{"ada"}]
    assert [set(one.tokens) for one in scene.served.api("rita").backlog().values()] == [{"ada"}]
    bob.close()


def test_a_job_of_another_user_is_refused_in_the_words_of_one_that_is_not_there(scene: Scene) -> None:
    with scene.served.http("bob") as http:
        theirs, nobodys = (http.get(f"/v1/jobs/{job}").json() for job in (scene.numbers["done"], 999))
    assert theirs == nobodys | {"detail": f"there is no job {scene.numbers['done']}"}


def test_a_token_with_less_scope_opens_less(scene: Scene) -> None:
    from ndif_batch.queue.access import Scope

    weak = scene.behind.queue.create_token("ada", scopes=[Scope.READ], actor="test").text
    scene.served.tokens["weak"] = weak
    with scene.served.http("weak") as http:
        assert http.get("/v1/jobs").status_code == 200
        refused = http.post(f"/v1/jobs/{scene.numbers['waiting']}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    with scene.served.http("root") as http:
        assert http.delete(f"/v1/tokens/{weak.split('_')[1]}").status_code == 200
    with scene.served.http("weak") as http:
        ended = http.get("/v1/jobs")
        assert (ended.status_code, ended.json()["code"], ended.headers["www-authenticate"]) == (
            401,
            "not_authenticated",
            "Bearer",
        )


def test_only_an_administrator_submits_before_others(scene: Scene) -> None:
    for who, status in (("ada", 403), ("root", 200)):
        with scene.served.http(who) as http:
            assert http.post("/v1/jobs", json=SUBMISSION | {"priority": 5}).status_code == status
