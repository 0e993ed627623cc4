"""Logs that programs can read."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from observability.logs import configure_logs


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    root, synod = logging.getLogger(), logging.getLogger("synod")
    before = (list(root.handlers), root.level, synod.level)
    yield
    root.handlers[:], root.level, synod.level = before[0], before[1], before[2]


def _log_something() -> None:
    logging.getLogger("synod.x").info("hello %s", "world", extra={"node": "store-1"})
    logging.getLogger("synod.x").debug("not shown")
    logging.getLogger("elsewhere").info("not shown")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("synod.x").exception("failed")


def test_a_line_of_json_for_programs() -> None:
    stream = io.StringIO()
    configure_logs("info", stream)

    _log_something()

    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["level"], first["logger"], first["message"], first["node"]) == (
        "info",
        "synod.x",
        "hello world",
        "store-1",
    )
    assert "ZeroDivisionError" in second["exception"]


def test_a_plain_line_for_people() -> None:
    stream = _Terminal()
    configure_logs("info", stream)

    _log_something()

    assert "info    x: hello world node=store-1\n" in stream.getvalue()
    assert "not shown" not in stream.getvalue()
