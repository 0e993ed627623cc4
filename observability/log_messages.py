"""Logs a node's messages that matter to operators, as lines with fields.

At `info` only changes of the cluster: elections, views, aborts, fences, joins. An idle cluster has
none, so its log is quiet. At `debug` every message of the write path and of reads.
"""

import logging
from typing import Any

from actors.messages import AnyMessage
from actors.paxos.ballot import Ballot
from observability.events import summary_of

log = logging.getLogger("synod.protocol")

_LOGGED_WHEN_SENT = {
    "paxos.prepare": "stands for election",
    "log.propose": "asks the log",
    "txn.inquiry": "asks the stores of its view",
    "view.join": "asks to join the view",
    "client.redirect": "refuses a command",
}
_LOGGED_WHEN_RECEIVED = {
    "txn.inquiry": "is fenced",
    "node.stale_disk": "is notified that its disk is older than it reported",
    "replica.diverged": "is notified that its state differs from the others",
}
_BACKGROUND = frozenset(
    (
        "node.heartbeat",
        "lease.heartbeat",
        "lease.granted",
        "leader.beat",
        "learn.progress",
        "call.survey",
    )
)
"""Sent all the time; not even logged at `debug`."""


class MessageLogger:
    """Receives one node's events, as `broker.observer.Observer`."""

    def __init__(self, node: str, logger: logging.Logger = log) -> None:
        self._node = node
        self._log = logger
        self._last_logged: dict[str, object] = {}
        """The last logged message of each kind; an equal one is logged at `debug`."""
        self._leader_ballot: Ballot | None = None

    def received(self, sender: str, message: AnyMessage) -> None:
        """The actor received a message."""
        kind: str = message.type  # type: ignore[attr-defined]
        what = _LOGGED_WHEN_RECEIVED.get(kind)
        if what is not None:
            self._log_change(kind, f"{what} by {sender}", message)
        elif kind == "client.result":
            self._log_result(message)
        elif kind not in _BACKGROUND and self._log.isEnabledFor(logging.DEBUG):
            self._log_message(logging.DEBUG, f"received {kind} from {sender}", message)

    def sent(self, to: str, message: AnyMessage) -> None:
        """The transport received a message to send."""
        kind: str = message.type  # type: ignore[attr-defined]
        what = _LOGGED_WHEN_SENT.get(kind)
        if what is not None:
            self._log_change(kind, what, message)
        elif kind == "lease.heartbeat":
            self._log_election(message)
        elif kind not in _BACKGROUND and self._log.isEnabledFor(logging.DEBUG):
            self._log_message(logging.DEBUG, f"sent {kind} to {to}", message)

    def _log_election(self, message: Any) -> None:
        if message.ballot != self._leader_ballot:
            self._leader_ballot = message.ballot
            self._log_message(logging.INFO, "was elected", message, summary="")

    def _log_result(self, message: Any) -> None:
        aborted = message.outcome.status == "aborted"
        if aborted or self._log.isEnabledFor(logging.DEBUG):
            level = logging.INFO if aborted else logging.DEBUG
            self._log_message(level, f"a request is {message.outcome.status}", message, summary="")

    def _log_change(self, kind: str, what: str, message: Any) -> None:
        """Log a new message at `info`; an equal one is only a retransmission."""
        again = self._last_logged.get(kind) == message
        self._last_logged[kind] = message
        self._log_message(logging.DEBUG if again else logging.INFO, what, message)

    def _log_message(self, level: int, what: str, message: Any, summary: str | None = None) -> None:
        text = summary_of(message) if summary is None else summary
        line = f"{self._node} {what}" + (f": {text}" if text else "")
        self._log.log(level, "%s", line, extra=fields_of(self._node, message))


def fields_of(node: str, message: Any) -> dict[str, object]:
    """The fields of a line about `message`, without those that the message lacks."""
    ballot = getattr(message, "ballot", None)
    outcome = getattr(message, "outcome", None)
    view = getattr(message, "view", None)
    value = getattr(message, "value", None)
    found = {
        "node": node,
        "type": message.type,
        "request": getattr(message, "request", None),
        "slot": getattr(message, "slot", None if outcome is None else outcome.slot),
        "epoch": getattr(message, "epoch", getattr(view or value, "epoch", None)),
        "ballot": None if ballot is None else f"{ballot.round}.{ballot.proposer}",
    }
    return {name: field for name, field in found.items() if field is not None}
