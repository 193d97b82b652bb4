"""Every page in a real browser: nothing on its console, nothing asked of others, nobody's things but one's own.

Pictures of them are those of docs/dashboard.md, written anew there if ``NDIF_BATCH_PICTURES`` is set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from ndif_batch.queue.routes import DASHBOARD
from ndif_batch.server.dashboard.pages import PAGES
from tests.dashboard import scenes
from tests.dashboard.browsing import PHONE, WIDE, Visitor, visiting
from tests.dashboard.conftest import Scene, playing

DOCUMENT = Path(__file__).parents[2] / "docs" / "dashboard.md"
KEPT = DOCUMENT.parent / "pictures" / "dashboard"
PICTURED = [page.name for page in PAGES]
RUNNING = ("induction-heads", "lost-its-worker")
MOST_BYTES = 150_000
TALL = 1100
"""Pixels of a picture of a page that is longer than a screen."""

Size: TypeAlias = tuple[int, int]


@pytest.fixture(scope="module")
def clusters(busy: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    with (
        playing(tmp_path_factory.mktemp("broken"), scenes.broken) as broken,
        playing(tmp_path_factory.mktemp("empty"), scenes.empty) as empty,
    ):
        yield {"busy": busy, "broken": broken, "empty": empty}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: into the documentation if they are asked for."""
    return KEPT if os.environ.get("NDIF_BATCH_PICTURES") else tmp_path_factory.mktemp("pictures")


def paths(scene: Scene) -> dict[str, str]:
    """Every page by its name, that of a job once for the first and once for a running one."""
    jobs = scene.queue.jobs(limit=50)
    found = {page.name: page.path for page in PAGES if page.under is None}
    if jobs:
        found["first"] = f"/jobs/{jobs[-1].id}"
    if running := next((job for job in jobs if job.name in RUNNING), None):
        found["job"] = f"/jobs/{running.id}"
    return found


@pytest.mark.parametrize(("suffix", "size", "scheme"), [("", WIDE, "light"), ("-phone", PHONE, "dark")])
@pytest.mark.parametrize("cluster", ["busy", "broken", "empty"])
def test_no_page_complains_asks_others_or_is_wider_than_its_screen(
    browser: Browser, clusters: dict[str, Scene], folder: Path, cluster: str, suffix: str, size: Size, scheme: str
) -> None:
    scene = clusters[cluster]
    with visiting(browser, scene.served, "root", size, scheme) as admin:
        for name, path in paths(scene).items():
            admin.goes(path)
            assert (path, admin.overflows()) == (path, 0)
            if cluster == "busy" and name in PICTURED:
                take_picture(admin, folder / f"{name}{suffix}.png", size)
            assert (path, admin.errors) == (path, [])
        assert admin.outside == []


def take_picture(visitor: Visitor, file: Path, size: Size) -> None:
    """Of a whole page if it is not too long, small enough for a repository."""
    if "/jobs/" in visitor.page.url:
        visitor.page.wait_for_selector("[data-drawn]")
    height = min(TALL, visitor.page.evaluate("document.documentElement.scrollHeight"))
    visitor.page.set_viewport_size({"width": size[0], "height": max(size[1], height)})
    with Image.open(BytesIO(visitor.page.screenshot(animations="disabled"))) as picture:
        few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(file, optimize=True)
    visitor.page.set_viewport_size({"width": size[0], "height": size[1]})
    assert 5_000 < file.stat().st_size <= MOST_BYTES


def test_the_documentation_shows_every_page_and_no_picture_is_left_over() -> None:
    shown = re.findall(r"pictures/dashboard/([\w-]+\.png)", DOCUMENT.read_text())
    wanted = {f"{name}{suffix}.png" for name in PICTURED for suffix in ("", "-phone")}
    assert set(shown) == wanted == {file.name for file in KEPT.iterdir()}


def test_a_name_that_is_an_attack_is_shown_as_it_is(browser: Browser, clusters: dict[str, Scene]) -> None:
    scene = clusters["broken"]
    (evil,) = [job for job in scene.queue.jobs() if job.name == scenes.EVIL]
    with visiting(browser, scene.served, "root") as admin:
        for path in ("/", "/jobs", f"/jobs/{evil.id}", "/archive"):
            admin.goes(path)
            expect(admin.page.get_by_text(scenes.EVIL).first).to_be_visible()
            assert "owned" not in admin.page.title() or scenes.EVIL in admin.page.title()


def test_a_user_sees_their_own_and_nothing_of_others(browser: Browser, busy: Scene) -> None:
    others = {job.name for job in busy.queue.jobs(limit=200) if job.user != "chen"} - {
        job.name for job in busy.queue.jobs("chen", limit=200)
    }
    with visiting(browser, busy.served, "ada") as ada:
        ada.goes("/jobs")
        assert set(ada.page.locator("tbody td:nth-child(4)").all_inner_texts()) == {"ada"}
        assert ada.page.locator("nav[aria-label=Pages] a").all_inner_texts() == [
            page.title for page in PAGES if page.under is None and not page.for_all
        ]
        for path in ("/", "/archive", "/people"):
            ada.goes(path)
            assert not {"bob", "chen"} & set(re.findall(r"\w+", ada.page.locator("#live").inner_text()))
        (bobs,) = busy.queue.jobs("bob", limit=1)
        for path in ("/audit", "/system", f"/jobs/{bobs.id}", f"/jobs/{bobs.id}/grid"):
            answer = ada.page.goto(f"{busy.served.url}{DASHBOARD}{path}")
            assert answer is not None
            assert answer.status == (404 if "jobs" in path else 403)
    assert others


def test_a_reader_sees_all_and_is_offered_nothing_to_do(browser: Browser, busy: Scene) -> None:
    with visiting(browser, busy.served, "rita") as rita:
        for path in paths(busy).values():
            rita.goes(path)
            assert rita.page.locator("[data-post]").count() == 0
        rita.goes("/jobs")
        assert {"ada", "bob", "chen"} <= set(rita.page.locator("tbody td:nth-child(3)").all_inner_texts())


def test_pages_are_used_by_the_keyboard_alone(browser: Browser, busy: Scene) -> None:
    with visiting(browser, busy.served, "root") as admin:
        admin.goes("/jobs")
        admin.page.keyboard.press("Tab")
        expect(admin.page.locator(".skip")).to_be_focused()
        admin.page.keyboard.press("Enter")
        admin.page.keyboard.press("Tab")
        expect(admin.page.locator("[name=name]")).to_be_focused()
        admin.page.keyboard.type("induction")
        admin.page.keyboard.press("Enter")
        admin.page.wait_for_url("**/jobs?name=induction*")
        choose = admin.page.locator("[data-job]")
        choose.focus()
        admin.page.keyboard.press("Space")
        hold = admin.page.get_by_role("button", name="Hold")
        hold.focus()
        outline = hold.evaluate("it => getComputedStyle(it).outlineStyle")
        assert outline == "solid"
        admin.page.keyboard.press("Enter")
        expect(admin.page.locator("#ask[open] h2")).to_have_text(re.compile(r"Hold job \d+"))
        admin.page.keyboard.press("Escape")
        expect(admin.page.locator("#ask[open]")).to_have_count(0)


def test_the_grid_of_a_job_shows_values_where_there_are_some_and_states_elsewhere(
    browser: Browser, busy: Scene
) -> None:
    (running,) = [job for job in busy.queue.jobs() if job.name == "induction-heads"]
    with visiting(browser, busy.served, "root") as admin:
        admin.goes(f"/jobs/{running.id}")
        saved, leased, waiting = (cell_at(admin, row) for row in (2, 15, 22))
        assert saved.startswith("layer 2, position 5: 2.")
        assert leased == "layer 15, position 5: leased"
        assert waiting == "layer 22, position 5: waiting"
        assert colour_at(admin, 2) != colour_at(admin, 15) != colour_at(admin, 22)
        admin.page.locator("[name=save]").select_option("-")
        admin.page.get_by_role("button", name="Draw").click()
        admin.page.wait_for_url("**save=-*")
        assert cell_at(admin, 2) == "layer 2, position 5: saved"


def cell_at(visitor: Visitor, row: int) -> str:
    """What is told of the cell in a row and column 5 under the pointer."""
    visitor.page.wait_for_selector("[data-drawn]")
    x, y = visitor.page.evaluate(MIDDLE, row)
    visitor.page.mouse.move(x, y)
    return visitor.page.locator(".under").inner_text()


def colour_at(visitor: Visitor, row: int) -> list[int]:
    found: list[int] = visitor.page.evaluate(COLOUR, row)
    return found


MIDDLE = """row => {
  const grid = document.querySelector("[data-grid]"), { margin, width, height } = grid.frame;
  const canvas = grid.querySelector("canvas");
  canvas.scrollIntoView({ block: "center" });
  const box = canvas.getBoundingClientRect();
  return [box.left + margin + 5.5 * width, box.top + LINE + (row + 0.5) * height];
}"""
COLOUR = """row => {
  const grid = document.querySelector("[data-grid]"), { margin, width, height } = grid.frame;
  const draw = grid.querySelector("canvas").getContext("2d");
  return [...draw.getImageData(margin + 5.5 * width, LINE + (row + 0.5) * height, 1, 1).data];
}"""
