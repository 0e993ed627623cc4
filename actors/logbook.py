"""The log for whoever looks on: a learner tells of it, a gateway's client asks one after the other.

It is read only: nothing of the protocol waits for it or rests on it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.ballot import NO_BALLOT
from actors.calls import NOTHING_READ, ReadLog, Unavailable
from actors.effects import Answer, Milliseconds
from actors.messages import LogCommand, LogEntry, LogPage, LogRead
from actors.rotation import Rotation
from actors.values import Abort, AnyValue, Batch, Command, Transaction, View

if TYPE_CHECKING:
    from actors.client import Client
    from actors.learner import Learner

ENTRIES_MAX = 500
_AGAIN_MS = 1_000
_PATIENCE_MS = 4_000


def page_of(learner: "Learner", message: LogRead) -> LogPage:
    """The part of the learner's chosen log that `message` asks for."""
    entries: list[LogEntry] = []
    view = learner.view
    epoch = view.epoch if view is not None else 0
    first = learner.log.first_kept
    for slot in range(learner.scanned, first - 1, -1):
        known = learner.log.known.get(slot)
        if known is None or len(entries) >= min(message.limit, ENTRIES_MAX):
            break
        if not message.before or slot < message.before:
            ballot = None if known.ballot == NO_BALLOT else known.ballot
            aborted = known.aborted
            entries.append(
                LogEntry(
                    slot=slot,
                    kind=known.value.kind,
                    epoch=epoch,
                    ballot=ballot,
                    accepted_by=tuple(sorted(known.accepted_by)),
                    commands=_commands_of(known.value, message.commands_max),
                    commands_count=_count(known.value),
                    aborted=None if aborted is None else tuple(one.index for one in aborted),
                    text=_text_of(known.value),
                )
            )
        if isinstance(known.value, View) and known.value.epoch == epoch:
            # A View of another epoch had no effect where it stands (section 4).
            epoch -= 1
    return LogPage(
        number=message.number, entries=tuple(entries), decided=learner.decided, first_kept=first
    )


def _count(value: AnyValue) -> int:
    return len(value.commands) if isinstance(value, Batch) else 0


def _commands_of(value: AnyValue, most: int) -> tuple[LogCommand, ...]:
    if not isinstance(value, Batch):
        return ()
    return tuple(
        LogCommand(
            request=command.request, operation=command.operation.kind, path=_path_of(command)
        )
        for command in (value.commands[:most] if most else value.commands)
    )


def _path_of(command: Command) -> str:
    operation = command.operation
    if isinstance(operation, Transaction):
        return f"{len(operation.steps)} steps"
    source, target = getattr(operation, "source", ""), getattr(operation, "target", "")
    if source:
        return f"{source} → {target}"
    return str(getattr(operation, "path", target))


def _text_of(value: AnyValue) -> str:
    match value:
        case View():
            stores = ", ".join(store.name for store in value.stores)
            return f"view {value.epoch}: {value.coordinator} coordinates {stores}"
        case Abort():
            return f"abort {len(value.commands)} commands of slot {value.slot}: {value.reason}"
        case Batch():
            return f"{len(value.commands)} commands"
        case _:
            return "nothing, to fill a gap"


@dataclass(slots=True)
class _Asking:
    """A call that no learner has answered yet."""

    call: ReadLog
    deadline: Milliseconds
    rotation: Rotation


class LogReads:
    """The calls of one client for the log."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._asking: dict[int, _Asking] = {}
        self._number = client.identity.first_number

    @property
    def busy(self) -> bool:
        """Whether a call waits."""
        return bool(self._asking)

    def begin(self, call: ReadLog) -> None:
        """Ask a learner."""
        self._number += 1
        deadline = self._client.now + _PATIENCE_MS
        self._asking[self._number] = _Asking(call, deadline, Rotation(deadline=deadline))
        self._ask(self._number)

    def on_page(self, sender: str, message: LogPage) -> None:
        """A learner's answer; the first one counts."""
        asking = self._asking.pop(message.number, None)
        if asking is not None:
            self._client.out.answers.append(Answer(asking.call.token, message))

    def tick(self) -> None:
        """Ask the next learner, or give up."""
        now = self._client.now
        for number in sorted(self._asking):
            asking = self._asking[number]
            if now >= asking.deadline:
                del self._asking[number]
                reason = f"no learner sent its log ({asking.rotation.account})"
                refusal = Unavailable(reason, NOTHING_READ)
                self._client.out.answers.append(Answer(asking.call.token, refusal))
            else:
                self._ask(number)

    def _ask(self, number: int) -> None:
        """Ask the learner whose turn it is, if it is time to ask one."""
        client, asking = self._client, self._asking[number]
        call, view = asking.call, client.view
        # The votes go to the coordinator, which therefore knows best who accepted what.
        learners = sorted(
            client.options.names("learner"),
            key=lambda name: view is None or name != view.coordinator,
        )
        silent = client.silent(tuple(learners))
        learner = asking.rotation.next(learners, client.now, _AGAIN_MS, silent)
        if learner is None:
            return
        client._send(
            learner,
            LogRead(
                number=number,
                before=call.before,
                limit=call.limit,
                commands_max=call.commands_max,
            ),
        )
