"""Every page in a real browser: nothing on its console, nothing asked of others, nobody's things but one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from ndif_batch.client.local import LocalQueue
from tests import toy
from tests.dashboard import scenes
from tests.dashboard.browsing import PHONE, visiting
from tests.server.serving import Served, serving


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the busy cluster."""
    root: Path = tmp_path_factory.mktemp("busy")
    scenes.busy(root)
    settings = toy.settings(root)
    with LocalQueue.open(settings.database) as queue, serving(queue, settings, unix=False) as served:
        yield served


@pytest.mark.parametrize("path", ["/", "/jobs"])
def test_a_page_says_nothing_on_the_console_and_asks_nobody_else(browser: Browser, busy: Served, path: str) -> None:
    with visiting(browser, busy, "root") as admin:
        admin.goes(path)
        assert admin.errors == []
        assert admin.outside == []


@pytest.mark.parametrize("path", ["/", "/jobs"])
def test_a_page_is_no_wider_than_a_phone(browser: Browser, busy: Served, path: str) -> None:
    with visiting(browser, busy, "root", PHONE) as admin:
        admin.goes(path)
        assert admin.overflows() == 0
