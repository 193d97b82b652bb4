"""Debian's Chromium in the hands of Playwright: who visits, and what the pages said and asked for meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from ndif_batch.queue.routes import DASHBOARD, LOGIN
from tests.server.serving import Served

CHROMIUM = shutil.which("chromium")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WIDE, PHONE = (1440, 900), (390, 844)
PATIENCE_MS = 30_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    assert CHROMIUM, "there is no chromium: `make chromium`"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """One browser of one person: a page, and what it wrote to the console or asked of others."""

    served: Served
    page: Page
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._hears)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._asks(request.url))

    def _hears(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.errors.append(said.text)

    def _asks(self, url: str) -> None:
        if urlsplit(url).scheme != "data" and urlsplit(url).netloc != urlsplit(self.served.url).netloc:
            self.outside.append(url)

    def goes(self, path: str) -> None:
        """Open a page of the dashboard, and wait until it is live."""
        self.page.goto(f"{self.served.url}{DASHBOARD}{path}")
        self.page.wait_for_selector("#pulse.live")

    def logs_in(self, who: str) -> None:
        """By a link, as the command line prints it."""
        with closing(self.served.api(who)) as api:
            code = api.create_login(actor=who).text
        self.page.goto(f"{self.served.url}{LOGIN}?code={code}")
        self.page.wait_for_selector("#live")

    def does(self, button: str | Locator, reason: str | None, **fields: str) -> str:
        """Press a button, answer what it asks, and give what is told of it."""
        (self.page.locator(button) if isinstance(button, str) else button).click()
        asking = self.page.locator("#ask[open]")
        for name, value in fields.items():
            field = asking.locator(f"[name={name}]")
            field.select_option(value) if field.evaluate("it => it.tagName") == "SELECT" else field.fill(value)
        if reason is not None:
            asking.locator("[name=reason]").fill(reason)
        told = self.page.locator("#told p")
        before = told.count()
        asking.locator("#ask-yes").click()
        self.page.wait_for_selector("#ask:not([open])", state="attached")
        expect(told.nth(before)).to_be_visible(timeout=PATIENCE_MS)
        return told.nth(before).inner_text()

    def overflows(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@contextmanager
def visiting(
    browser: Browser, served: Served, who: str | None, size: tuple[int, int] = WIDE, scheme: str = "light"
) -> Iterator[Visitor]:
    """A browser of their own for one of the server's users, logged in."""
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if scheme == "dark" else "light"
    )
    try:
        visitor = Visitor(served, context.new_page())
        if who is not None:
            visitor.logs_in(who)
        yield visitor
    finally:
        context.close()
