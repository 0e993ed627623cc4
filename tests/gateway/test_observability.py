"""Logs that programs can read, and metrics that a runtime's observer feeds."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from actors.effects import TimerKey
from actors.messages import Inquiry
from observability.logs import configure_logs
from observability.metrics import NodesMetrics


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


def test_what_a_runtime_tells_is_counted() -> None:
    registry = CollectorRegistry()
    node = NodesMetrics(registry).node("store-1")

    node.received("store-1", Inquiry(cluster=""))
    node.sent("@acceptors", Inquiry(cluster=""))
    node.sent("acceptor-1", Inquiry(cluster=""))
    node.committed(3, 0.002)
    node.turned(5, 0.004)
    node.expired(TimerKey("tick"), 30)
    node.expired(TimerKey("tick"), -1)
    node.timers_lost(2)
    node.quarantined("why")
    node.rebuilt("why")
    node.halted("why")
    node.watch(
        connected=lambda: True,
        blocked=lambda: False,
        dropped=lambda: 4,
        inbox=lambda: 5,
        armed=lambda: 6,
    )

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"synod_{name}", {"node": "store-1", **labels})

    assert value("messages_received_total", type="genesis.inquiry") == 1
    assert value("messages_sent_total", type="genesis.inquiry") == 2
    assert (value("commit_rows_total"), value("commit_seconds_sum")) == (3, 0.002)
    assert (value("turn_items_total"), value("turn_seconds_count")) == (5, 1)
    assert (value("timer_late_seconds_count"), value("timer_late_seconds_sum")) == (2, 0.03)
    assert (value("timers_lost_total"), value("quarantined_total")) == (2, 1)
    assert (value("rebuilds_total"), value("halted")) == (1, 1)
    assert (value("broker_connected"), value("broker_blocked")) == (1, 0)
    assert (value("broker_dropped"), value("inbox_messages"), value("timers_armed")) == (4, 5, 6)
