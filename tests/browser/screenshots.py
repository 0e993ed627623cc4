"""Renews the pictures of the UI in `docs/pictures`: `make screenshots`.

It starts a cluster of its own, fills it with something to look at, and takes each picture in the
theme that shows it best.
"""

import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from chaos.cluster.local import Description, LocalCluster
from synod.client import Client

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
SIZE = {"width": 1360, "height": 850}
PHONE = {"width": 390, "height": 780}


def _fill(url: str) -> str:
    """Something to look at; the id of a request whose life is drawn."""
    with Client(url) as synod:
        for source in sorted((ROOT / "docs").rglob("*.md")):
            path = f"manual/{source.relative_to(ROOT / 'docs')}"
            synod.put(path, source.read_bytes(), content_type="text/markdown")
        for month in range(1, 10):
            synod.put(f"reports/2026-{month:02}.csv", b"day,orders\n" * (month * 700))
        synod.put("models/classifier.onnx", os.urandom(1_500_000))
        synod.put("deploy.toml", b'[service]\nname = "orders"\nreplicas = 3\n')
        synod.copy("manual", "manual-2025")
        for number in range(5):
            synod.put("warm", b"%d" % number)
        synod.delete("warm")
        return synod.put("releases/8/notes.md", b"# Faster\n").request


def _work(url: str, end: threading.Event) -> None:
    """Write and read a few times a second: the charts show rates, and no node falls behind."""
    with Client(url) as synod:
        number = 0
        while not end.wait(0.15):
            synod.put(f"counters/{number % 20}", b"%d" % number)
            synod.read(f"counters/{number % 20}")
            number += 1


def _page(browser: Browser, url: str, address: str, *, dark: bool, phone: bool = False) -> Page:
    size = PHONE if phone else SIZE
    context = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if dark else "light",
        device_scale_factor=1.5 if phone else 1,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{url}/#/{address}")
    return page


def _take(page: Page, name: str) -> None:
    page.wait_for_function("!document.getElementById('nav-foot').textContent.includes('…')")
    page.screenshot(path=PICTURES / f"{name}.png")
    page.context.close()
    print(f"docs/pictures/{name}.png")


def _take_all(browser: Browser, cluster: LocalCluster, request: str) -> None:
    url = cluster.url
    page = _page(browser, url, "files/manual/architecture.md", dark=False)
    page.locator("textarea").wait_for()
    _take(page, "files")
    for name, dark in (("request", False), ("request-dark", True)):
        page = _page(browser, url, f"requests/{request}", dark=dark)
        page.locator(".message").first.wait_for()
        for _ in range(3 if dark else 0):
            page.keyboard.press("ArrowRight")
        _take(page, name)
    page = _page(browser, url, f"requests/{request}", dark=False, phone=True)
    page.locator(".message").first.wait_for()
    _take(page, "request-phone")
    page = _page(browser, url, "log/", dark=False)
    page.locator(".row").first.click()
    _take(page, "log")
    page = _page(browser, url, "requests/", dark=True)
    page.locator(".row").first.wait_for()
    _take(page, "requests")
    page = _page(browser, url, "cluster/", dark=True)
    page.get_by_role("heading", name="store-3").wait_for()
    cluster.kill("store-2")
    page.locator(".node.silent").wait_for(timeout=30_000)
    page.locator(".history li i").first.wait_for(timeout=30_000)
    page.wait_for_timeout(20_000)
    cluster.start_node("store-2")
    page.locator(".node.silent").wait_for(state="detached", timeout=60_000)
    page.wait_for_timeout(8_000)
    _take(page, "cluster")


def main() -> int:
    """Start, fill, take, stop."""
    from tests.browser.conftest import CHROMIUM

    if CHROMIUM is None:
        print("there is no Chromium; install it: apt-get install chromium", file=sys.stderr)
        return 1
    PICTURES.mkdir(exist_ok=True)
    description = replace(Description.mint(settings={"trace": "all"}))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as threads:
        cluster = LocalCluster(Path(folder), description)
        end = threading.Event()
        try:
            cluster.start()
            cluster.wait_ready()
            request = threads.submit(_fill, cluster.url).result()
            threads.submit(_work, cluster.url, end)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
                )
                _take_all(browser, cluster, request)
                browser.close()
        finally:
            end.set()
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
