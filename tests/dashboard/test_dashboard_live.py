"""Pages follow the queue: by events within two seconds, without them by asking again, and for whoever looks at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from ndif_batch.client.local import LocalQueue
from ndif_batch.queue.figures import Pulse
from ndif_batch.queue.records import JobState
from ndif_batch.queue.routes import DASHBOARD
from ndif_batch.server.dashboard.live import TICK_SECONDS, Heart
from ndif_batch.server.process import STOP_SECONDS
from tests import toy
from tests.dashboard import scenes
from tests.dashboard.browsing import visiting
from tests.dashboard.conftest import Scene, playing

LIVE_SECONDS = 2.0
SLOW = 3.0
"""What a machine of two cores that others use may add."""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with playing(tmp_path_factory.mktemp("crowd"), scenes.crowded) as scene:
        yield scene


def newest(scene: Scene) -> int:
    return scene.queue.jobs("ada", JobState.PENDING, limit=1)[0].id


def test_a_change_is_seen_at_once(browser: Browser, crowd: Scene) -> None:
    with visiting(browser, crowd.served, "root") as admin:
        admin.goes("/jobs")
        row = admin.page.locator(f"#job-{newest(crowd)} .state")
        expect(row).to_have_text("Pending")
        crowd.queue.hold(newest(crowd), "ada")
        expect(row).to_have_text("Held", timeout=1000 * (LIVE_SECONDS + SLOW))
        assert admin.errors == []


SEEN = """([place, state]) => new Promise(done => {
    const look = () => document.querySelector(place)?.innerText.trim() === state;
    const watch = new MutationObserver(() => look() && (watch.disconnect(), done(Date.now())));
    watch.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
    if (look()) { watch.disconnect(); done(Date.now()); }
})"""
IN_A_ROW, MOST_CHANGES = 5, 40


def test_changes_are_in_the_page_within_two_seconds(browser: Browser, crowd: Scene) -> None:
    """Five in a row, from the database's commit to the page's own clock: polling, each 5 s, would not do it by luck."""
    job, row, waits = newest(crowd), 0, list[float]()
    with visiting(browser, crowd.served, "root") as admin:
        admin.goes("/jobs")
        place = f"#job-{job} .state"
        while row < IN_A_ROW and len(waits) < MOST_CHANGES:
            held = crowd.queue.job(job).state is JobState.HELD
            began = time.time()
            (crowd.queue.release if held else crowd.queue.hold)(job, "ada")
            shown = admin.page.evaluate(SEEN, [place, "Pending" if held else "Held"])
            waits.append(shown / 1000 - began)
            row = row + 1 if waits[-1] <= LIVE_SECONDS else 0
    assert row == IN_A_ROW, f"seen after {waits} seconds"


def test_a_tab_that_nobody_sees_lets_its_connection_go_and_takes_it_up_again(browser: Browser, crowd: Scene) -> None:
    show = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    show += " document.dispatchEvent(new Event('visibilitychange')) }"
    with visiting(browser, crowd.served, "root") as admin:
        admin.goes("/jobs")
        admin.page.evaluate(show, True)
        expect(admin.page.locator("#pulse")).to_have_text("every 5 s")
        admin.page.evaluate(show, False)
        expect(admin.page.locator("#pulse")).to_have_text("live")
        job = newest(crowd)
        crowd.queue.hold(job, "ada")
        expect(admin.page.locator(f"#job-{job} .state")).to_have_text("Held", timeout=1000 * (LIVE_SECONDS + SLOW))
        assert admin.errors == []


def test_one_look_a_tick_serves_all_who_listen_and_none_holds_a_connection(tmp_path: Path) -> None:
    scenes.empty(tmp_path)
    looks: list[float] = []

    class Counted(LocalQueue):
        def pulse(self) -> Pulse:
            looks.append(time.monotonic())
            return super().pulse()

    async def listen(heart: Heart, told: list[str]) -> None:
        async for event in heart.listen():
            told.append(event)

    async def crowded() -> tuple[list[str], int]:
        with Counted.open(toy.settings(tmp_path).database) as queue:
            ends = time.monotonic() + 2.5 * TICK_SECONDS
            heart, told = Heart(queue, lambda: time.monotonic() > ends), list[str]()
            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(listen(heart, told))
                await asyncio.sleep(1.5 * TICK_SECONDS)
                held = queue._database._writer.pool.checkedout()  # type: ignore[attr-defined]
            return told, held

    with ThreadPoolExecutor(1) as another:  # this thread's loop is Playwright's
        told, held = another.submit(asyncio.run, crowded()).result()
    assert held == 0
    assert 2 <= len(looks) <= 4
    assert all(event.startswith("event: pulse\ndata: ") for event in told)
    assert 50 <= len(told) <= 100


def test_without_events_pages_ask_again_and_are_right(browser: Browser, crowd: Scene) -> None:
    with visiting(browser, crowd.served, "root") as admin:
        admin.page.route(f"**{DASHBOARD}/live", lambda route: route.abort())
        admin.page.goto(f"{crowd.served.url}{DASHBOARD}/jobs")
        expect(admin.page.locator("#pulse")).to_have_text("every 5 s")
        row = admin.page.locator(f"#job-{newest(crowd)} .state")
        crowd.queue.hold(newest(crowd), "ada")
        expect(row).to_have_text("Held", timeout=20_000)


def test_what_is_chosen_and_typed_stays_while_the_page_lives(browser: Browser, crowd: Scene) -> None:
    job = newest(crowd)
    with visiting(browser, crowd.served, "root") as admin:
        admin.goes("/jobs")
        admin.page.locator(f"#choose-{job}").check()
        admin.page.locator("[name=name]").fill("half a na")
        crowd.queue.hold(job, "ada")
        expect(admin.page.locator(f"#job-{job} .state")).to_have_text("Held", timeout=20_000)
        assert admin.page.locator(f"#choose-{job}").is_checked()
        expect(admin.page.locator("#chosen")).to_have_text("1 chosen")
        assert admin.page.locator("[name=name]").input_value() == "half a na"


def test_ten_thousand_jobs_are_paged_through_and_searched(browser: Browser, crowd: Scene) -> None:
    with visiting(browser, crowd.served, "root") as admin:
        admin.goes("/jobs?user=ada")
        counts = admin.page.locator(".counts").inner_text()
        assert sum(int(word) for word in counts.replace("\u202f", "").split() if word.isdecimal()) == scenes.MANY
        seen = admin.page.locator("[data-job]").evaluate_all("all => all.map(one => Number(one.dataset.job))")
        admin.page.get_by_role("link", name="Older").click()
        admin.page.wait_for_url("**before=*")
        admin.page.wait_for_selector("#pulse.live")
        older = admin.page.locator("[data-job]").evaluate_all("all => all.map(one => Number(one.dataset.job))")
        assert len(seen) == len(older) == 50
        assert older == list(range(seen[-1] - 1, seen[-1] - 51, -1))
        admin.goes("/jobs?name=needle")
        assert admin.page.locator("tbody th.name").all_inner_texts() == ["needle"]
        admin.goes("/jobs?name=no-such-thing")
        expect(admin.page.get_by_text("No such jobs")).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs?name=needle", "/archive", "/people", "/audit"])
def test_a_look_at_ten_thousand_jobs_costs_little(crowd: Scene, path: str) -> None:
    cookie = crowd.queue.login(crowd.queue.create_login(actor="root").text).text
    port = crowd.served.url.rpartition(":")[2]
    with crowd.served.http() as http:
        http.cookies.set(f"ndif_batch_{port}", cookie)
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            assert http.get(f"{DASHBOARD}{path}").status_code == 200
            seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


def test_two_who_look_at_once_each_see_what_the_other_does(browser: Browser, crowd: Scene) -> None:
    job = newest(crowd)
    with visiting(browser, crowd.served, "root") as root, visiting(browser, crowd.served, "ada") as ada:
        for one in (root, ada):
            one.goes(f"/jobs/{job}")
        ada.does("main button:text-is('Hold')", None)
        expect(root.page.locator("main .state").first).to_have_text("Held", timeout=20_000)
        root.does("main button:text-is('Cancel')", "two at once")
        expect(ada.page.locator("main .state").first).to_have_text("Cancelled", timeout=20_000)
        assert crowd.queue.job(job).reason == "cancelled by root: two at once"
        assert root.errors == ada.errors == []


def test_a_server_with_listeners_ends_at_once(browser: Browser, tmp_path: Path) -> None:
    stage = ExitStack()
    scene = stage.enter_context(playing(tmp_path, scenes.empty))
    with visiting(browser, scene.served, "root") as admin:
        admin.goes("/")
        began = time.monotonic()
        stage.close()
        assert time.monotonic() - began < STOP_SECONDS / 2
        expect(admin.page.locator("#pulse")).to_have_text("every 5 s")
