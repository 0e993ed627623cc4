"""What the UI costs.

`python -m tests.browser.measure URL [--minutes 10]`: first paint, the longest task and memory, in a
real browser on a running cluster, which it fills with a folder of 10,000 files and loads with 200
requests a second.

`python -m tests.browser.measure --windows 5 [--pairs 8]`: what open windows take from the writes,
on a cluster of its own; see `tests.browser.windows`.
"""

import argparse
import asyncio
import os
import sys
import threading
import time
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import BrokerFailedError
from synod.client import AsyncClient
from tests.browser.conftest import CHROMIUM
from tests.browser.windows import Load, report

FILES = 10_000
FOLDER = "measured"
_OBSERVE = """
window.longest = 0; window.tasks = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    window.tasks += 1;
    window.longest = Math.max(window.longest, entry.duration);
  }
}).observe({ type: "longtask", buffered: true });
"""


_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


async def _fill(synod: AsyncClient) -> None:
    # Not larger: what takes a busy machine longer than a lease to chew makes nodes look silent.
    for first in range(0, FILES, 200):
        await synod.transaction(
            {"op": "put", "path": f"{FOLDER}/{number:04}.txt", "text": "x"}
            for number in range(first, first + 200)
        )


async def _steady(url: str, rate: int, end: threading.Event, clients: int = 20) -> int:
    """Half writes, half reads, at fixed moments while the cluster keeps up; how many there were."""
    answered = 0

    async def client(index: int) -> None:
        nonlocal answered
        async with AsyncClient(url, connections=1) as synod:
            due = time.monotonic() + index / rate
            while not end.is_set():
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + clients / rate, time.monotonic())
                path = f"{FOLDER}/{(answered * 7 + index) % FILES:04}.txt"
                await (synod.put(path, b"%d" % answered) if answered % 2 else synod.read(path))
                answered += 1

    async with asyncio.TaskGroup() as group:
        for index in range(clients):
            group.create_task(client(index))
    return answered


def _in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(work)))
    thread.start()
    return thread, result


def _open(context: BrowserContext, url: str, address: str) -> Page:
    page = context.new_page()
    page.add_init_script(_OBSERVE)
    page.goto(f"{url}/#/{address}")
    return page


def _paint_and_tasks(context: BrowserContext, url: str, rate: int, minutes: float) -> None:
    end = threading.Event()
    load, answered = _in_thread(_steady(url, rate, end))
    began = time.monotonic()
    paints = []
    for _ in range(3):
        page = _open(context, url, f"files/{FOLDER}/")
        page.get_by_text("10,000 entries").wait_for(timeout=120_000)
        paints.append(page.evaluate(_FIRST_PAINT))
        page.close()
    page = _open(context, url, f"files/{FOLDER}/")
    print(f"first contentful paint: {', '.join(f'{paint:.0f}' for paint in paints)} ms")
    page.get_by_text("10,000 entries").wait_for(timeout=120_000)
    session = context.new_cdp_session(page)
    for minute in range(1 + max(1, round(minutes))):
        if minute:
            page.wait_for_timeout(60_000)
        session.send("HeapProfiler.collectGarbage")
        heap = session.send("Runtime.getHeapUsage")["usedSize"] / 2**20
        longest, tasks = page.evaluate("[window.longest, window.tasks]")
        print(
            f"minute {minute}: heap after collection {heap:.1f} MiB; longest task {longest:.0f} "
            f"ms, {tasks} over 50 ms",
            flush=True,
        )
    end.set()
    load.join()
    print(f"requests answered: {answered[0] / (time.monotonic() - began):.0f} a second")
    page.close()


def _in_a_browser(url: str, rate: int, minutes: float) -> None:
    async def fill() -> None:
        async with AsyncClient(url) as synod:
            await _fill(synod)

    asyncio.run(fill())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        _paint_and_tasks(context, url, rate, minutes)
        browser.close()


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.measure", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("url", nargs="?", help="of a running cluster, for what a browser is needed")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--windows", type=int, help="what so many open windows cost")
    parser.add_argument("--pairs", type=int, default=8, help="of runs without and with windows")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--rate", type=float, help="requests a second; of writes 0: flat out")
    parser.add_argument("--clients", type=int, default=32, help="that write flat out")
    given = parser.parse_args()
    if (given.url is None) == (given.windows is None):
        parser.error("either a URL or --windows is needed")
    if given.url is not None:
        _in_a_browser(given.url, int(given.rate or 200), given.minutes)
        return 0
    try:
        report(given.windows, given.pairs, Load(given.seconds, given.rate or 0, given.clients))
    except (ProcessFailed, BrokerFailedError, TimeoutError) as error:
        print(f"tests.browser.measure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
