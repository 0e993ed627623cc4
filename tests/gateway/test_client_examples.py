"""The examples in `docs/client.md` run as they are printed, one after another in one program."""

import asyncio
import re

import pytest

from synod.client import DEFAULT_URL, AsyncClient
from tests.house.test_tidy import ROOT

PAGE = (ROOT / "docs/client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


async def test_the_examples_run(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a gateway, and a program that writes what the page's watch waits for, when another
    program runs the page's examples, then each does what it asserts.
    """
    url = f"http://127.0.0.1:{port}"
    names: dict[str, object] = {"__name__": "examples"}

    def run() -> None:
        for example in EXAMPLES:
            exec(example.replace(DEFAULT_URL, url), names)

    async def write() -> None:
        async with AsyncClient(url) as synod:
            while not running.done():
                await synod.put("incoming/a", b"1")
                await asyncio.wait([running], timeout=0.05)

    assert len(EXAMPLES) == PAGE.count("```python") > 5
    running = asyncio.create_task(asyncio.to_thread(run))
    await write()
    await running
    assert capsys.readouterr().out.startswith("put incoming/a ")
