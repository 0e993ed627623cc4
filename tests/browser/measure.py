"""What the UI costs: first paint, the longest task, memory, and what windows take from writes.

`python -m tests.browser.measure URL [--minutes 10]` on a running cluster, which it fills with a
folder of 10,000 files and loads with 200 requests a second.
"""

import argparse
import asyncio
import os
import statistics
import threading
import time
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

from gateway.sdk import AsyncSynod
from tests.browser.conftest import CHROMIUM

FILES = 10_000
FOLDER = "measured"
WINDOWS = 5
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


async def _fill(synod: AsyncSynod) -> None:
    for thousand in range(FILES // 1000):
        await synod.transaction(
            {"op": "put", "path": f"{FOLDER}/{thousand}{number:03}.txt", "text": "x"}
            for number in range(1000)
        )


async def _steady(url: str, rate: int, end: threading.Event, clients: int = 20) -> int:
    """Half writes, half reads, at fixed moments while the cluster keeps up; how many there were."""
    answered = 0

    async def client(index: int) -> None:
        nonlocal answered
        async with AsyncSynod(url, connections=1) as synod:
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


async def _flat_out(url: str, seconds: float, clients: int = 32) -> float:
    """Writes a second of so many clients that each wait for their answer."""
    done = 0
    ends = time.monotonic() + seconds

    async def client(index: int) -> None:
        nonlocal done
        async with AsyncSynod(url, connections=1) as synod:
            while time.monotonic() < ends:
                await synod.put(f"flat/{index}", b"%d" % done)
                done += 1

    async with asyncio.TaskGroup() as group:
        for index in range(clients):
            group.create_task(client(index))
    return done / seconds


def _in_thread(work: Any) -> tuple[threading.Thread, list[Any]]:
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(work)))
    thread.start()
    return thread, result


def _elsewhere(work: Any) -> Any:
    thread, result = _in_thread(work)
    thread.join()
    return result[0]


def _open(context: BrowserContext, url: str, address: str) -> Page:
    page = context.new_page()
    page.add_init_script(_OBSERVE)
    page.goto(f"{url}/#/{address}")
    return page


def _paint_and_tasks(context: BrowserContext, url: str, minutes: float) -> None:
    end = threading.Event()
    load, answered = _in_thread(_steady(url, 200, end))
    began = time.monotonic()
    paints = []
    for _ in range(3):
        page = _open(context, url, f"files/{FOLDER}/")
        page.get_by_text("10,000 entries").wait_for(timeout=60_000)
        paints.append(page.evaluate(_FIRST_PAINT))
        page.close()
    page = _open(context, url, f"files/{FOLDER}/")
    print(f"first contentful paint: {', '.join(f'{paint:.0f}' for paint in paints)} ms")
    session = context.new_cdp_session(page)
    heaps = []
    while time.monotonic() - began < minutes * 60:
        page.wait_for_timeout(10_000)
        session.send("HeapProfiler.collectGarbage")
        heaps.append(session.send("Runtime.getHeapUsage")["usedSize"] / 2**20)
    longest, tasks = page.evaluate("[window.longest, window.tasks]")
    print(f"tasks over 50 ms: {tasks}; the longest {longest:.0f} ms")
    third = max(1, len(heaps) // 3)
    first, last = statistics.mean(heaps[:third]), statistics.mean(heaps[-third:])
    print(f"heap after collection: first third {first:.1f} MiB, last third {last:.1f} MiB")
    end.set()
    load.join()
    print(f"requests answered: {answered[0] / (time.monotonic() - began):.0f} a second")
    page.close()


def _throughput(context: BrowserContext, url: str, seconds: float) -> None:
    without, with_windows = [], []
    for _ in range(3):
        without.append(_elsewhere(_flat_out(url, seconds)))
        pages = [
            _open(context, url, address)
            for address in (f"files/{FOLDER}/", "cluster/", "requests/", "log/", "cluster/")
        ]
        assert len(pages) == WINDOWS
        pages[0].get_by_text("10,000 entries").wait_for(timeout=60_000)
        with_windows.append(_elsewhere(_flat_out(url, seconds)))
        for page in pages:
            page.close()
    print(f"writes a second without windows: {', '.join(f'{rate:.0f}' for rate in without)}")
    print(f"with {WINDOWS} windows: {', '.join(f'{rate:.0f}' for rate in with_windows)}")
    share = 1 - statistics.median(with_windows) / statistics.median(without)
    print(f"taken by the windows: {share:.1%} (medians)")


def main() -> None:
    """Fill, look, load, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run of writes")
    given = parser.parse_args()

    async def fill() -> None:
        async with AsyncSynod(given.url) as synod:
            await _fill(synod)

    asyncio.run(fill())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        _paint_and_tasks(context, given.url, given.minutes)
        _throughput(context, given.url, given.seconds)
        browser.close()


if __name__ == "__main__":
    main()
