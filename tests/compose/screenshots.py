"""Takes the pictures of `docs/console.md` from the console of a cluster that `make up` started.

::

    python -m tests.compose.screenshots docs/images
"""

import json
import os
import shutil
import sys
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
CONSOLE = "http://127.0.0.1:15672"
GATEWAY = "http://127.0.0.1:80"
QUEUE = "look"
EXCHANGES = ("nodes", "acceptors", "learners", "stores")


def environment() -> dict[str, str]:
    """The credentials that `make up` wrote."""
    lines = (ROOT / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


class Console:
    """The console's HTTP API."""

    def __init__(self, user: str, password: str) -> None:
        self._word = b64encode(f"{user}:{password}".encode()).decode()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        """One call. Raises `OSError`."""
        request = urllib.request.Request(
            f"{CONSOLE}/api/{path}", json.dumps(body or {}).encode(), method=method
        )
        request.add_header("authorization", f"Basic {self._word}")
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=10):
            pass


def look_at_one_write(console: Console, token: str) -> None:
    """Write once, while a queue gets a copy of every message."""
    console.call("PUT", f"queues/%2F/{QUEUE}", {"durable": True, "arguments": {}})
    for exchange in EXCHANGES:
        for key in ("proposer-1", "learner-1", "gateway-1"):
            binding = {"routing_key": key}
            console.call("POST", f"bindings/%2F/e/synod.synod.{exchange}/q/{QUEUE}", binding)
    # Only the messages of the write are wanted, not those of a cluster at rest.
    console.call("DELETE", f"queues/%2F/{QUEUE}/contents")
    request = urllib.request.Request(
        f"{GATEWAY}/v1/files/notes/hello.txt", b"hello console", method="PUT"
    )
    request.add_header("authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30):
        pass


def shoot(page: Page, console: Console, folder: Path, known: dict[str, str]) -> None:
    """All pictures."""
    page.goto(CONSOLE)
    page.fill("input[name=username]", known["RABBITMQ_USER"])
    page.fill("input[name=password]", known["RABBITMQ_PASSWORD"])
    page.click("input[type=submit]")
    page.wait_for_selector("text=Overview")

    def picture(name: str, path: str, ready: str) -> None:
        page.goto(f"{CONSOLE}/#/{path}")
        page.wait_for_selector(ready)
        page.screenshot(path=folder / f"{name}.png")

    picture("console-exchanges", "exchanges", "text=synod.synod.acceptors")
    picture("console-queues", "queues", "text=synod.synod.store-1")
    look_at_one_write(console, known["SYNOD_TOKEN"])
    queue = urllib.parse.quote(QUEUE)
    page.goto(f"{CONSOLE}/#/queues/%2F/{queue}")
    page.wait_for_selector("text=Get messages")
    page.click("h2:has-text('Get messages')")
    page.fill("input[name=count]", "40")
    page.click("input[value='Get Message(s)']")
    page.wait_for_selector("text=paxos.accept")
    for name, kind in (("console-accept", "paxos.accept"), ("console-vote", "txn.vote")):
        message = page.locator(".box", has_text=kind).filter(has_text="Payload").first
        message.scroll_into_view_if_needed()
        message.screenshot(path=folder / f"{name}.png")


def main(folder: Path) -> None:
    """Take the pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    known = environment()
    console = Console(known["RABBITMQ_USER"], known["RABBITMQ_PASSWORD"])
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.set_default_timeout(20_000)
            shoot(page, console, folder, known)
        finally:
            browser.close()
            console.call("DELETE", f"queues/%2F/{QUEUE}")


if __name__ == "__main__":
    began = time.monotonic()
    main(Path(sys.argv[1]))
    print(f"took {time.monotonic() - began:.0f} s")
