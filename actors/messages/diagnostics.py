"""What whoever looks on asks of a learner: the log, slot by slot, without any contents."""

from typing import Literal

from actors.numbers import Count
from actors.paxos.ballot import Ballot
from actors.values import Frozen


class LogCommand(Frozen):
    """A command of a slot: its request, what it does, and where."""

    request: str
    operation: str
    path: str


class LogEntry(Frozen):
    """A chosen slot. `aborted` names the commands that do not commit; `None`: not decided yet.

    `epoch` is that of the view in force at the slot; `ballot` one under which it was chosen, where
    the learner saw that itself, and `accepted_by` the acceptors whose votes under it came to that
    learner. `text` says what a slot without commands holds. Of more commands than were asked for
    only the first are in `commands`; `commands_count` counts all.
    """

    slot: Count
    kind: Literal["batch", "view", "abort", "noop"]
    epoch: Count
    ballot: Ballot | None
    accepted_by: tuple[str, ...]
    commands: tuple[LogCommand, ...]
    commands_count: Count
    aborted: tuple[Count, ...] | None
    text: str


class LogRead(Frozen):
    """Tell me of the newest chosen slots below `before` (0: of all), `limit` of them, with at most
    `commands_max` commands each (0: with all).
    """

    type: Literal["log.read"] = "log.read"
    number: Count
    before: Count
    limit: Count
    commands_max: Count


class LogPage(Frozen):
    """The answer, newest first. The sender keeps slots from `first_kept` on; the outcome of those
    above `decided` is still open.
    """

    type: Literal["log.page"] = "log.page"
    number: Count
    entries: tuple[LogEntry, ...]
    decided: Count
    first_kept: Count
