"""A cluster of processes for all tests of the UI, and Chromium on pages that must stay clean."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import BrokerFailedError
from synod.client import Client

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
MACHINE_CHANGED = "ERR_NETWORK_CHANGED"
"""Chromium ends what is under way when the machine gets or loses an interface, as Docker does."""

PATIENCE_MS = 15_000
"""How long anything may take to appear. Eighteen processes and a browser may share two cores."""

expect.set_options(timeout=PATIENCE_MS)

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """RabbitMQ and one process for each node; fewer proposers, as the UI does not care."""
    description = replace(Description.mint(settings={"trace": "all"}), proposers=2, acceptors=3)
    cluster = LocalCluster(tmp_path_factory.mktemp("ui"), description)
    try:
        cluster.start()
        cluster.wait_ready()
        yield cluster
    except (BrokerFailedError, ProcessFailed) as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        cluster.stop()


class Elsewhere:
    """The client library in a thread of its own: Playwright keeps an event loop in this one."""

    def __init__(self, url: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._synod = self._thread.submit(Client, url).result()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._synod, name)
        return lambda *given, **named: self._thread.submit(call, *given, **named).result()

    def end(self) -> None:
        self._thread.submit(self._synod.close).result()
        self._thread.shutdown()


@pytest.fixture(scope="module")
def synod(cluster: LocalCluster) -> Iterator[Elsewhere]:
    synod = Elsewhere(cluster.url)
    yield synod
    synod.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for longer than the module: Playwright keeps an event loop running in this thread, in
    # which no asynchronous test of another module could run.
    if CHROMIUM is None:
        missing = "there is no Chromium; install it: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to run as root, which containers and CI often are.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if root else []
        )
        yield browser
        browser.close()


@dataclass
class Window:
    """A page, and what it did that it should not."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    forgiven: tuple[str, ...] = ()

    def go(self, address: str) -> Page:
        """Open an address of the UI, such as `files/a/`."""
        self.page.goto(f"{self.url}/#/{address}")
        return self.page

    def check_clean(self) -> None:
        """No error on the console, no request to anybody else."""
        forgiven = (*self.forgiven, MACHINE_CHANGED)
        left = [fault for fault in self.faults if not any(text in fault for text in forgiven)]
        assert left == []

    def check_accessible(self) -> None:
        """axe-core finds no serious fault."""
        self.page.evaluate(AXE.read_text())
        found: Any = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        serious = [
            {"rule": rule["id"], "where": [node["html"][:160] for node in rule["nodes"][:4]]}
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        assert serious == [], json.dumps(serious, indent=1)


Open = Callable[..., Window]


@pytest.fixture
def open_window(browser: Browser, cluster: LocalCluster) -> Iterator[Open]:
    """Opens windows; at the end none of them may have complained."""
    contexts: list[BrowserContext] = []
    windows: list[Window] = []

    def open_window(
        *,
        size: dict[str, int] = DESKTOP,
        dark: bool = False,
        beside: Window | None = None,
        forgiven: tuple[str, ...] = (),
    ) -> Window:
        if beside is None:
            context = browser.new_context(
                viewport={"width": size["width"], "height": size["height"]},
                color_scheme="dark" if dark else "light",
                reduced_motion="reduce",
                accept_downloads=True,
            )
            contexts.append(context)
        else:
            context = beside.page.context
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        window = Window(page, cluster.url, forgiven=forgiven)
        page.on(
            "console",
            lambda message: (
                window.faults.append(f"console: {message.text} {message.location.get('url', '')}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: window.faults.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((cluster.url, "data:", "blob:"))
                else window.faults.append(f"foreign: {request.url}")
            ),
        )
        windows.append(window)
        return window

    yield open_window
    for context in contexts:
        context.close()
    for window in windows:
        window.check_clean()
