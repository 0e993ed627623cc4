"""Diagnostics: a gateway reads a learner's log, slot by slot, without any contents."""

from typing import Literal

from actors.numbers import Count
from actors.paxos.ballot import Ballot
from actors.values import Frozen


class LogCommand(Frozen):
    """A command of a slot: its request's id, its operation and its path."""

    request: str
    operation: str
    path: str


class LogEntry(Frozen):
    """A chosen slot. `aborted` names the commands that do not commit; `None`: not decided yet.

    `epoch` is that of the view in force at the slot; `ballot` one under which it was chosen, if the
    learner counted the votes itself, and `accepted_by` the acceptors whose votes under it reached
    that learner. `text` describes the value. If there are more commands than were asked for, only
    the first are in `commands`; `commands_count` counts all.
    """

    slot: Count
    kind: Literal["batch", "view", "abort", "noop", "members", "settled", "roster"]
    epoch: Count
    ballot: Ballot | None
    accepted_by: tuple[str, ...]
    commands: tuple[LogCommand, ...]
    commands_count: Count
    aborted: tuple[Count, ...] | None
    text: str


class LogRead(Frozen):
    """A request for the newest chosen slots below `before` (0: of all), `limit` of them, with at
    most `commands_max` commands each (0: with all).
    """

    type: Literal["log.read"] = "log.read"
    number: Count
    before: Count
    limit: Count
    commands_max: Count


class LogPage(Frozen):
    """The answer to a `LogRead`, newest slot first.

    The sender keeps slots from `first_kept` on; those above `decided` are not decided yet.
    """

    type: Literal["log.page"] = "log.page"
    number: Count
    entries: tuple[LogEntry, ...]
    decided: Count
    first_kept: Count
