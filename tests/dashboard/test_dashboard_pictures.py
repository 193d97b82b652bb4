"""Pictures of every page, as docs/dashboard.md shows them; written anew there if ``NDIF_BATCH_PICTURES`` is set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from ndif_batch.server.dashboard.pages import PAGES
from tests.dashboard import scenes
from tests.dashboard.browsing import PHONE, WIDE, visiting
from tests.dashboard.conftest import Scene, playing
from tests.dashboard.test_dashboard_slurm import on_slurm

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "dashboard.md"
KEPT = ROOT / "docs" / "pictures" / "dashboard"
MOST_BYTES, COLOURS = 150_000, 256
TALL = 1100
"""Pixels of a page that is longer than a screen."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("pictures")
    scenes.site(root / "bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(root / "bin"), prepend=":")
        with playing(root, scenes.busy, on_slurm(root)) as found:
            yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return KEPT if os.environ.get("NDIF_BATCH_PICTURES") else tmp_path_factory.mktemp("written")


def paths(scene: Scene) -> dict[str, str]:
    (job,) = [job for job in scene.queue.jobs(limit=50) if job.name == "induction-heads"]
    return {page.name: page.path.replace("{job:int}", str(job.id)) for page in PAGES}


@pytest.mark.parametrize(("suffix", "size", "scheme"), [("", WIDE, "light"), ("-phone", PHONE, "dark")])
def test_pages_are_pictured_in_light_and_in_dark_wide_and_on_a_phone(
    browser: Browser, scene: Scene, folder: Path, suffix: str, size: tuple[int, int], scheme: str
) -> None:
    with visiting(browser, scene.served, "root", size, scheme) as admin:
        for name, path in paths(scene).items():
            admin.page.set_viewport_size({"width": size[0], "height": size[1]})
            admin.goes(path)
            if name == "job":
                admin.page.wait_for_selector("[data-drawn]")
            height = min(TALL, admin.page.evaluate("document.documentElement.scrollHeight"))
            admin.page.set_viewport_size({"width": size[0], "height": max(size[1], height)})
            file = folder / f"{name}{suffix}.png"
            with Image.open(BytesIO(admin.page.screenshot(animations="disabled"))) as picture:
                colours = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            colours.save(file, optimize=True)
            assert 5_000 < file.stat().st_size <= MOST_BYTES, name
        assert admin.errors == []


def test_the_documentation_shows_every_page_and_no_picture_is_left_over() -> None:
    shown = re.findall(r"pictures/dashboard/([\w-]+\.png)", PAGE.read_text())
    wanted = {f"{page.name}{suffix}.png" for page in PAGES for suffix in ("", "-phone")}
    assert set(shown) == wanted == {file.name for file in KEPT.iterdir()}
