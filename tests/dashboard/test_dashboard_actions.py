"""Every action is clicked in a real browser, and what it did is looked up in the database, with who did it and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from playwright.sync_api import Browser, expect

from ndif_batch.client.local import LocalQueue
from ndif_batch.queue.cluster import PilotState, Quotas, Role
from ndif_batch.queue.figures import EventFilter
from ndif_batch.queue.records import EventKind, JobState, WorkerState
from ndif_batch.queue.routes import DASHBOARD
from ndif_batch.server.dashboard.actions import ACTIONS
from tests import tiny, toy
from tests.dashboard import scenes
from tests.dashboard.browsing import PATIENCE_MS, Visitor, visiting
from tests.dashboard.conftest import Scene, playing

WHY = "because a test says so"
Names: TypeAlias = Mapping[str, Any]
Holds: TypeAlias = Callable[[LocalQueue, Names], object]


@dataclass(frozen=True)
class Row:
    """Where an action is found, what is filled in, and what is so afterwards; ``{…}`` are names of the stage."""

    page: str
    button: str
    happened: EventKind
    holds: Holds
    fields: Mapping[str, str] = field(default_factory=dict)
    choose: tuple[str, ...] = ()


def in_row(row: str, label: str) -> str:
    return f"#{row} button:text-is('{label}')"


def model(name: str, label: str) -> str:
    return f"[data-model='{name}'] button:text-is('{label}')"


def bulk(label: str) -> str:
    return f"#bulk button:text-is('{label}')"


def setting(name: str, value: object) -> Holds:
    return lambda queue, names: queue.settings().get(name) == value


def pilot(name: str, state: PilotState) -> Holds:
    return lambda queue, names: queue.pilots_named([name])[0].state is state


def on_job(name: str, **wanted: object) -> Holds:
    def holds(queue: LocalQueue, names: Names) -> bool:
        found = queue.job(names[name])
        return all(getattr(found, what) == value for what, value in wanted.items())

    return holds


TABLE: Mapping[str, Row] = {
    "jobs/hold": Row(
        "/jobs", bulk("Hold"), EventKind.JOB_HELD, on_job("one", state=JobState.HELD), choose=("one", "two")
    ),
    "jobs/release": Row(
        "/jobs/{held}", "main button:text-is('Release')", EventKind.JOB_RELEASED, on_job("held", state=JobState.PENDING)
    ),
    "jobs/priority": Row(
        "/jobs", bulk("Priority"), EventKind.JOB_PRIORITIZED, on_job("two", priority=7), {"priority": "7"}, ("two",)
    ),
    "jobs/retry": Row(
        "/jobs", bulk("Retry"), EventKind.JOB_RETRIED, on_job("failed", tasks_failed=0), choose=("failed",)
    ),
    "jobs/cancel": Row(
        "/jobs",
        bulk("Cancel"),
        EventKind.JOB_CANCELLED,
        on_job("three", state=JobState.CANCELLED, reason=f"cancelled by root: {WHY}"),
        choose=("three",),
    ),
    "jobs/remove-results": Row(
        "/archive", in_row("job-{done}", "Remove"), EventKind.RESULTS_REMOVED, on_job("done", archive_bytes=0)
    ),
    "models/load": Row(
        "/models", model(scenes.GEMMA, "Load"), EventKind.SETTING_CHANGED, setting(f"load:{scenes.GEMMA}", True)
    ),
    "models/pin": Row(
        "/models",
        model(scenes.GEMMA, "Pin"),
        EventKind.SETTING_CHANGED,
        setting(f"pin:{scenes.GEMMA}", 3),
        {"pilots": "3"},
    ),
    "models/evict": Row(
        "/models",
        model(scenes.LLAMA, "Evict"),
        EventKind.PILOT_DRAINING,
        pilot("evicted", PilotState.DRAINING),
    ),
    "models/remove": Row(
        "/models",
        model(scenes.SMOL, "Remove"),
        EventKind.MODEL_REMOVED,
        lambda queue, names: not queue.model(scenes.SMOL).enabled,
    ),
    "pause": Row(
        "/models", model(scenes.LLAMA, "Pause"), EventKind.SETTING_CHANGED, setting(f"pause:{scenes.LLAMA}", True)
    ),
    "resume": Row(
        "/system", "main button:text-is('Resume everything')", EventKind.SETTING_CHANGED, setting("pause", False)
    ),
    "pilots/drain": Row(
        "/workers",
        "tr:has-text('drained') button:text-is('Drain')",
        EventKind.PILOT_DRAINING,
        pilot("drained", PilotState.DRAINING),
    ),
    "pilots/kill": Row(
        "/workers",
        "tr:has-text('killed') button:text-is('Kill')",
        EventKind.PILOT_ENDED,
        pilot("killed", PilotState.ENDED),
    ),
    "workers/drain": Row(
        "/workers",
        in_row("worker-{lone}", "Drain"),
        EventKind.WORKER_DRAINING,
        lambda queue, names: queue.workers([names["lone"]])[0].state is WorkerState.DRAINING,
    ),
    "users/create": Row(
        "/people",
        "button:text-is('New user')",
        EventKind.USER_CHANGED,
        lambda queue, names: ("dora", Role.READER) in {(one.name, one.role) for one in queue.users()},
        {"name": "dora", "role": "reader"},
    ),
    "users/set": Row(
        "/people",
        "tr:has(th:text-is('chen')) button:text-is('Change')",
        EventKind.USER_CHANGED,
        lambda queue, names: (queue.user("chen").shares, queue.user("chen").quotas) == (2.5, Quotas(1000, None, None)),
        {"shares": "2.5", "pending_tasks": "1000"},
    ),
    "tokens/create": Row(
        "/people",
        "button:text-is('New token')",
        EventKind.TOKEN_CREATED,
        lambda queue, names: [one.name for one in queue.tokens("chen")] == ["laptop"],
        {"user": "chen", "name": "laptop", "days": "30"},
    ),
    "tokens/revoke": Row(
        "/people",
        in_row("token-{token}", "Revoke"),
        EventKind.TOKEN_REVOKED,
        lambda queue, names: queue.token(names["token"]).revoked_at is not None,
    ),
    "settings/half-life": Row(
        "/system",
        "button:text-is('Half-life')",
        EventKind.SETTING_CHANGED,
        setting("half_life_hours", 72),
        {"half_life_hours": "72"},
    ),
}
ELSEWHERE = {"models/add"}
"""Needs weights: `test_a_model_is_added_from_its_page`."""


@dataclass(frozen=True)
class Stage:
    """What there is to act on, by name."""

    scene: Scene
    names: Names
    admin: Visitor


@pytest.fixture(scope="module")
def stage(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    names: dict[str, Any] = {}

    def make(root: Any) -> None:
        with scenes.opened(root) as client:
            queue = client.queue
            for name in (scenes.LLAMA, scenes.GEMMA, scenes.SMOL):
                toy.add(client, name, toy.site_map(scenes.LAYERS, 64))
            scenes.people(client)
            small: dict[str, Any] = {"size": (2, scenes.TOKENS)}
            names["failed"] = scenes.submit(client, "failed", "ada", seed=1, **small).id
            scenes.painting(client, engine=scenes.Painter(lambda task: "no such position" if task.id == 3 else None))
            names["done"] = scenes.submit(client, "done", "ada", seed=2, **small).id
            scenes.painting(client)
            names["held"] = scenes.submit(client, "held", "bob", hold=True, seed=3, **small).id
            for number, name in enumerate(("one", "two", "three", "bobs", "many")):
                names[name] = scenes.submit(client, name, "bob", seed=10 + number, **small).id
            for name, of in (("evicted", scenes.LLAMA), ("drained", scenes.GEMMA), ("killed", scenes.GEMMA)):
                pilot = queue.add_pilot(name, of, "local", {}, actor="scheduler")
                queue.update_pilot(pilot.id, PilotState.REQUESTED, PilotState.QUEUED, actor="scheduler")
                queue.register_worker(of, "gpu-01", 1, pilot=name)
            names["lone"] = queue.register_worker(scenes.GEMMA, "desk", 2)
            names["token"] = queue.create_token("bob", "old", actor="root").record.id
            queue.pause(actor="root")

    with playing(folder, make) as scene, visiting(browser, scene.served, "root") as admin:
        yield Stage(scene, names, admin)


def test_every_action_is_clicked_here() -> None:
    assert {*TABLE, *ELSEWHERE} == set(ACTIONS)


@pytest.mark.parametrize("action", TABLE)
def test_an_action_does_what_it_says_and_is_told_with_its_actor_and_reason(stage: Stage, action: str) -> None:
    row, queue, admin = TABLE[action], stage.scene.queue, stage.admin
    assert not row.holds(queue, stage.names)
    newest = max(event.id for event in queue.find_events(EventFilter(), 1))
    admin.goes(row.page.format_map(stage.names))
    for name in row.choose:
        admin.page.locator(f"#choose-{stage.names[name]}").check()
    if row.choose:
        chosen = f"{len(row.choose)} chosen"
        expect(admin.page.locator("#chosen")).to_have_text(chosen)
    button = reduce(lambda text, name: text.replace(f"{{{name}}}", str(stage.names[name])), stage.names, row.button)
    admin.does(button, WHY, **row.fields)
    assert row.holds(queue, stage.names)
    told = [one for one in queue.find_events(EventFilter(actor="root", kind=row.happened), 100) if one.id > newest]
    assert told
    assert {one.detail["reason"] for one in told} == {WHY}
    assert admin.errors == []
    admin.page.keyboard.press("Escape")


def test_a_model_is_added_from_its_page(stage: Stage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    tiny.write(source)
    stage.admin.goes("/models")
    stage.admin.page.set_default_timeout(6 * PATIENCE_MS)  # a process of its own imports torch
    told = stage.admin.does("main button:text-is('Add a model')", WHY, source=str(source), name="tiny")
    stage.admin.page.set_default_timeout(PATIENCE_MS)
    assert told == "model tiny is ready"
    assert stage.scene.queue.model("tiny").enabled
    expect(stage.admin.page.locator("[data-model=tiny]")).to_be_visible()


def test_a_token_is_shown_once_and_opens_the_server(stage: Stage) -> None:
    admin = stage.admin
    admin.goes("/people")
    admin.does("button:text-is('New token')", WHY, user="rita", days="1")
    text = admin.page.locator("#secret-text").inner_text()
    assert stage.scene.queue.authenticate(text).user == "rita"
    admin.page.get_by_role("button", name="Done").click()
    admin.goes("/people")
    assert text not in admin.page.content()


def test_an_action_that_is_refused_says_why_and_leaves_the_question_open(stage: Stage) -> None:
    admin = stage.admin
    admin.goes("/people")
    admin.page.get_by_role("button", name="New user").click()
    admin.page.locator("#ask [name=name]").fill("no/name")
    admin.page.locator("#ask [name=reason]").fill(WHY)
    admin.page.locator("#ask-yes").click()
    expect(admin.page.locator("#ask-wrong")).to_have_text("'no/name' cannot name a user")
    assert admin.page.locator("#ask[open]").count() == 1
    admin.errors.clear()  # the browser itself writes down that a request was answered with 400


def test_of_many_jobs_those_that_cannot_are_told(stage: Stage) -> None:
    admin, names = stage.admin, stage.names
    admin.goes("/jobs")
    for name in ("done", "many"):
        admin.page.locator(f"#choose-{names[name]}").check()
    told = admin.does(bulk("Cancel"), WHY)
    assert told.endswith("is COMPLETED and cannot be cancelled")
    assert stage.scene.queue.job(names["many"]).state is JobState.CANCELLED


def test_a_user_acts_on_their_own_jobs_without_a_reason_and_on_no_others(browser: Browser, stage: Stage) -> None:
    queue, bobs = stage.scene.queue, stage.names["bobs"]
    with visiting(browser, stage.scene.served, "bob") as bob:
        bob.goes(f"/jobs/{bobs}")
        bob.does("main button:text-is('Cancel')", None)
        assert queue.job(bobs).state is JobState.CANCELLED
        for path, fields in (("jobs/cancel", {"job": stage.names["done"]}), ("pause", {"reason": "mine"})):
            status = bob.page.evaluate(
                "async ([to, fields]) => (await fetch(to, {method: 'POST', body: new URLSearchParams(fields)})).status",
                [f"{DASHBOARD}/do/{path}", fields],
            )
            assert status == (404 if path == "jobs/cancel" else 403)
        assert queue.job(stage.names["done"]).state is not JobState.CANCELLED
