"""How a browser is let in, and what nobody can make it do: codes, cookies, origins, and what its pages may load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from ndif_batch.client import Client
from ndif_batch.errors import NotAuthenticatedError
from ndif_batch.queue.access import Scope
from ndif_batch.queue.records import EventKind
from ndif_batch.queue.routes import DASHBOARD, LOGIN
from ndif_batch.server.buckets import Buckets
from ndif_batch.server.dashboard.guard import MOST_BYTES, Guard
from ndif_batch.server.dashboard.pages import PAGES
from tests import toy
from tests.cli.conftest import Run, folder, run, settled
from tests.server.conftest import behind
from tests.server.serving import Served, serving
from tests.worker.working import submit

__all__ = ["behind", "folder", "run", "settled"]

OWN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def served(behind: Client) -> Iterator[Served]:
    with serving(behind.queue, behind.settings, unix=False) as found:
        yield found


def code(served: Served, who: str) -> str:
    with closing(served.api(who)) as api:
        return api.create_login(actor=who).text


@contextmanager
def logged_in(served: Served, who: str) -> Iterator[httpx.Client]:
    with served.http() as http:
        assert http.get(LOGIN, params={"code": code(served, who)}).status_code == 303
        yield http


def test_a_code_logs_one_browser_in_once(served: Served, behind: Client) -> None:
    once = code(served, "ada")
    with served.http() as http:
        answer = http.get(LOGIN, params={"code": once})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{DASHBOARD}/")
        set_cookie = answer.headers["set-cookie"]
        assert re.match(rf"ndif_batch_{http.base_url.port}=ndif_", set_cookie)
        assert {"HttpOnly", "SameSite=strict", f"Path={DASHBOARD}", "Max-Age=43200"} <= set(set_cookie.split("; "))
        assert http.get(f"{DASHBOARD}/").status_code == 200
    with served.http() as another:
        assert another.get(LOGIN, params={"code": once}).status_code == 401
        assert another.get(f"{DASHBOARD}/").headers["location"] == LOGIN
    kinds = [event.kind for event in behind.queue.events() if event.actor == "ada"]
    assert kinds.count(EventKind.TOKEN_CREATED) == 2


def test_a_code_opens_nothing_else_and_another_token_is_no_code(served: Served, behind: Client) -> None:
    once = code(served, "root")
    with pytest.raises(NotAuthenticatedError, match="not a token"):
        behind.queue.authenticate(once)
    with served.http() as http:
        assert http.get("/v1/me", headers={"Authorization": f"Bearer {once}"}).status_code == 401
        assert http.get(LOGIN, params={"code": served.tokens["root"]}).status_code == 401
    assert behind.queue.authenticate(served.tokens["root"]).user == "root"


def test_a_session_does_what_the_token_opens_that_asked_for_it_and_no_more(served: Served, behind: Client) -> None:
    reads = behind.queue.create_token("ada", scopes=[Scope.READ], actor="root").text
    with served.http() as http:
        headers = {"Authorization": f"Bearer {reads}"}
        session = http.post("/v1/logins", headers=headers, json={}).json()["text"]
    made = behind.queue.login(session)
    assert made.record.scopes == (Scope.READ,)
    assert made.record.expires_at is not None
    assert made.record.expires_at - made.record.created_at == timedelta(hours=12)
    with served.http() as http:
        answer = http.post("/v1/logins", headers={"Authorization": f"Bearer {made.text}"}, json={})
        assert (answer.status_code, answer.json()["detail"]) == (403, "this token expires before a session would end")


def test_a_page_from_elsewhere_logs_nobody_in_and_changes_nothing(served: Served, behind: Client) -> None:
    job = submit(behind)
    with served.http() as http:
        for site in ("cross-site", "same-site"):
            answer = http.get(LOGIN, params={"code": code(served, "ada")}, headers={"Sec-Fetch-Site": site})
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
    with logged_in(served, "ada") as ada:
        host = f"{ada.base_url.host}:{ada.base_url.port}"
        for headers, status in (
            ({}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "none"}, 403),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({**OWN, "Origin": "http://evil.example"}, 403),
            ({"Origin": f"http://{host}"}, 200),
        ):
            done = ada.post(f"{DASHBOARD}/do/jobs/hold", data={"job": str(job.id)}, headers=headers)
            assert (headers, done.status_code) == (headers, status)
            assert (behind.queue.job(job.id).state == "HELD") is (status == 200)


def test_only_a_post_changes_anything(served: Served) -> None:
    with logged_in(served, "root") as root:
        assert root.get(f"{DASHBOARD}/do/pause").status_code == 405
        assert root.get(f"{DASHBOARD}/logout").status_code == 405


def test_who_logs_out_is_out(served: Served) -> None:
    with logged_in(served, "ada") as ada:
        kept = dict(ada.cookies)
        assert ada.post(f"{DASHBOARD}/logout", headers=OWN).headers["location"] == LOGIN
        ada.cookies.update(kept)
        assert ada.get(f"{DASHBOARD}/").headers["location"] == LOGIN
        asked_by_page = ada.get(f"{DASHBOARD}/", headers={"HX-Request": "true"})
        assert (asked_by_page.status_code, asked_by_page.headers["hx-redirect"]) == (401, LOGIN)


def test_nobody_looks_without_a_session_whatever_the_page(served: Served) -> None:
    with served.http() as http:
        for page in PAGES:
            answer = http.get(f"{DASHBOARD}{page.path.replace('{job:int}', '1')}")
            assert (answer.status_code, answer.headers["location"]) == (303, LOGIN)
        for path in ("/live", "/jobs/1/grid"):
            assert http.get(f"{DASHBOARD}{path}").status_code == 303
        assert http.post(f"{DASHBOARD}/do/pause", headers=OWN).status_code == 303


def test_a_worker_has_no_pages(served: Served) -> None:
    with served.http() as walt:
        walt.cookies.set(f"ndif_batch_{walt.base_url.port}", served.tokens["walt"])
        assert walt.get(f"{DASHBOARD}/").status_code == 403


def test_pages_load_and_run_only_what_this_server_has(served: Served, behind: Client) -> None:
    job = submit(behind)
    paths = [page.path.replace("{job:int}", str(job.id)) for page in PAGES] + ["/login", "/nowhere", "/jobs/999"]
    with logged_in(served, "root") as root:
        for path in paths:
            answer = root.get(f"{DASHBOARD}{path}")
            policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
            assert policy["default-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
            assert "unsafe" not in str(policy)
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", answer.text) == []
            assert re.findall(r"(?:src|href|action)=\"(?!/dashboard/|#|\?)[^\"]*", answer.text) == []


def test_what_no_database_can_hold_is_told_as_a_mistake(served: Served, behind: Client) -> None:
    job = submit(behind).id
    huge = "9" * 5000
    with logged_in(served, "root") as root:
        for path in (
            f"/jobs/{huge[:40]}",
            f"/jobs?before={huge}",
            f"/jobs/{job}/grid?at.layer={huge}",
            "/jobs?state=GONE",
        ):
            assert root.get(f"{DASHBOARD}{path}").status_code in (200, 400, 404), path
        for path, fields in (
            ("jobs/hold", {"job": huge}),
            ("jobs/priority", {"job": str(job), "priority": str(10**12)}),
            ("models/pin", {"model": toy.NAME, "pilots": "-1"}),
            ("users/set", {"user": "ada", "shares": "nan", "role": "user"}),
            ("users/set", {"user": "ada", "shares": "1", "role": "king"}),
            ("tokens/create", {"user": "ada", "days": "inf"}),
            ("tokens/revoke", {"token": huge}),
            ("settings/half-life", {"half_life_hours": "-1"}),
        ):
            done = root.post(f"{DASHBOARD}/do/{path}", data={**fields, "reason": "x"}, headers=OWN)
            assert (path, done.status_code) == (path, 400)
        assert root.post(f"{DASHBOARD}/do/pause", headers=OWN).status_code == 400
    assert behind.queue.settings() == {}


def test_large_forms_are_refused(served: Served) -> None:
    with logged_in(served, "root") as root:
        large = root.post(f"{DASHBOARD}/do/pause", data={"reason": "x" * MOST_BYTES}, headers=OWN)
        assert large.status_code == 413


def test_a_browser_that_asks_too_often_is_told_when_to_come_again() -> None:
    browser = TestClient(Guard(PlainTextResponse("here"), Buckets(rate=0.5, burst=2, clock=lambda: 0.0)))
    assert [browser.get("/").status_code for _ in range(3)] == [200, 200, 429]
    assert browser.get("/").headers["retry-after"] == "2"
    assert browser.get("/", headers={"Cookie": "another=browser"}).status_code == 200


def test_the_command_prints_a_link_that_logs_in(
    served: Served, behind: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = served.url.rpartition(":")[2]
    monkeypatch.setenv("NDIF_BATCH_DATA_DIR", str(behind.settings.data_dir))
    monkeypatch.setenv("NDIF_BATCH_USER", "root")
    beside = run("dashboard", "--port", port)
    monkeypatch.setenv("NDIF_BATCH_URL", served.url)
    monkeypatch.setenv("NDIF_BATCH_TOKEN", served.tokens["ada"])
    through = run("dashboard")
    for printed, who in ((beside, "root"), (through, "ada")):
        link = printed.out.splitlines()[-1]
        assert link.startswith(f"{served.url}{LOGIN}?code=ndif_")
        with httpx.Client(follow_redirects=True) as http:
            page = http.get(link)
            assert page.status_code == 200
            assert f">{who} <small>" in page.text


def test_a_reason_is_kept_however_it_comes(
    served: Served, behind: Client, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = submit(behind).id, submit(behind, seed=1).id
    monkeypatch.setenv("NDIF_BATCH_DATA_DIR", str(behind.settings.data_dir))
    monkeypatch.setenv("NDIF_BATCH_USER", "root")
    run("--reason", "the node is dying, sorry", "hold", str(one))
    monkeypatch.setenv("NDIF_BATCH_URL", served.url)
    monkeypatch.setenv("NDIF_BATCH_TOKEN", served.tokens["root"])
    run("--reason", "Größe über alles", "cancel", str(two))
    told = {(event.job_id, event.kind): event.detail for event in behind.queue.events(limit=1000)}
    assert told[one, EventKind.JOB_HELD]["reason"] == "the node is dying, sorry"
    assert told[two, EventKind.JOB_CANCELLED]["reason"] == "Größe über alles"
    assert behind.queue.job(two).reason == "cancelled by root: Größe über alles"
    assert behind.queue.job(one).model == toy.NAME
