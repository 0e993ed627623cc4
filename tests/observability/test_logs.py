"""Logs that programs can read."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from actors.messages import ProposeValue, Result
from actors.values import Abort, Outcome
from observability.log_messages import MessageLogger
from observability.logs import HumanFormatter, JsonFormatter, Throttle, configure_logs
from tests.broker.samples import SAMPLES


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


def test_no_contents_and_no_passwords_from_any_logger() -> None:
    stream = io.StringIO()
    configure_logs("info", stream, node="store-1")
    contents = b"what a file holds, 'quoted' and \"quoted\""
    log = logging.getLogger("synod.x")

    log.warning("two values for slot 3: %r and %r", contents, {"data": contents})
    log.warning("no connection to amqp://synod:hunter2@127.0.0.1:5672/")
    log.warning("the header was Authorization: Bearer hunter2-hunter2")
    try:
        raise ValueError(contents)
    except ValueError:
        log.exception("failed")

    text = stream.getvalue()
    assert "what a file" not in text
    assert "hunter2" not in text
    assert "synod:********@127.0.0.1" in text
    assert [json.loads(line)["node"] for line in text.splitlines()] == ["store-1"] * 4


def test_a_flood_of_lines_is_kept_back_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("observability.logs.time.monotonic", lambda: now_s[0])
    throttle = Throttle(lines_per_s=2)

    def passes() -> logging.LogRecord | None:
        record = logging.makeLogRecord({"msg": "x"})
        return record if throttle.filter(record) else None

    assert [passes() is not None for _ in range(5)] == [True, True, False, False, False]
    now_s[0] += 1
    record = passes()
    assert record is not None
    assert vars(record)["kept_back"] == 3


# -- messages of a node ---------------------------------------------------------------------------


def told(level: str, *steps: tuple[str, str, Any]) -> list[dict[str, Any]]:
    """The lines that a `MessageLogger` logs for `steps`."""
    stream = io.StringIO()
    configure_logs(level, stream)
    narrator = MessageLogger("learner-1")
    for what, peer, message in steps:
        getattr(narrator, what)(peer, message)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_change_is_logged_with_its_fields_and_a_retransmission_is_not() -> None:
    abort = Abort(slot=7, commands=(0,), epoch=3, reason="store-2 did not vote")
    proposal = ProposeValue(value=abort)

    (line,) = told("info", ("sent", "proposer-1", proposal), ("sent", "proposer-1", proposal))

    assert (line["node"], line["type"], line["epoch"]) == ("learner-1", "log.propose", 3)
    assert "abort 1 commands of slot 7: store-2 did not vote" in line["message"]


def test_an_aborted_request_is_logged_with_its_id() -> None:
    outcome = Outcome(status="aborted", slot=9, index=0)
    result = Result(session="gateway-1.x", sequence=4, outcome=outcome)
    done = result.model_copy(update={"outcome": Outcome(status="done", slot=10, index=0)})

    (line,) = told("info", ("received", "learner-1", result), ("received", "learner-1", done))

    assert (line["request"], line["slot"]) == ("gateway-1.x-4", 9)


def test_every_message_of_a_write_is_logged_at_debug_and_none_at_info() -> None:
    steps = [(what, "store-1", message) for message in SAMPLES for what in ("sent", "received")]

    kinds = {line["type"] for line in told("debug", *steps)}
    quiet = {line["type"] for line in told("info", *steps)}

    assert {"paxos.accept", "txn.vote", "client.submit", "read.request"} <= kinds
    assert not {"node.heartbeat", "leader.beat"} & kinds
    assert not {"paxos.accept", "txn.vote", "client.submit", "read.request"} & quiet
    assert "paxos.prepare" in quiet


HOSTILE = "/v1/files/a\n12:00 error synod: all is lost \x1b[2J\x9b31m\u2028\u202e b"


def test_what_a_client_sent_draws_nothing_and_is_no_line_of_its_own() -> None:
    given = {"name": "synod", "msg": "GET %s failed", "args": (HOSTILE,), "path": HOSTILE}
    record = logging.makeLogRecord(given)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record.exc_info = sys.exc_info()

    for formatter in (HumanFormatter(), JsonFormatter()):
        lines = formatter.format(record).split("\n")
        assert all(line.isprintable() for line in lines), lines
        assert not any(line.startswith("12:00") for line in lines)
    assert "\\x0a12:00 error synod: all is lost \\x1b[2J" in HumanFormatter().format(record)
    told = json.loads(JsonFormatter().format(record))
    assert (told["message"], told["path"]) == (f"GET {HOSTILE} failed", HOSTILE)
