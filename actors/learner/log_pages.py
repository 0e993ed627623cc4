"""Diagnostics: the log as a learner sends it to gateways, page by page.

It only reads; the protocol neither waits for it nor rests on it.
"""

from actors.learner.state import LearnerState
from actors.messages import LogCommand, LogEntry, LogPage, LogRead
from actors.paging import PAGE_BYTES, Page
from actors.paxos.ballot import NO_BALLOT
from actors.values import (
    Abort,
    AnyValue,
    Batch,
    Command,
    Members,
    Roster,
    Settled,
    Transaction,
    View,
)

ENTRIES_MAX = 500


def page_of(learned: LearnerState, message: LogRead, page_bytes: int = PAGE_BYTES) -> LogPage:
    """The part of the learner's chosen log that `message` asks for."""
    entries: list[LogEntry] = []
    view = learned.view
    epoch = view.epoch if view is not None else 0
    first = learned.log.first_kept
    page = Page(page_bytes)
    for slot in range(learned.chosen_through, first - 1, -1):
        known = learned.log.known.get(slot)
        if known is None or len(entries) >= min(message.limit, ENTRIES_MAX):
            break
        if not message.before or slot < message.before:
            ballot = None if known.ballot == NO_BALLOT else known.ballot
            aborted = known.aborted
            entry = LogEntry(
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
            if not page.takes(len(entry.to_json())):
                break
            entries.append(entry)
        if isinstance(known.value, View) and known.value.epoch == epoch:
            # A View of another epoch had no effect where it stands (design 4).
            epoch -= 1
    return LogPage(
        number=message.number, entries=tuple(entries), decided=learned.decided, first_kept=first
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
        case Members():
            names = ", ".join(f"{acceptor.name} ({acceptor.disk})" for acceptor in value.acceptors)
            return f"acceptors {value.version}: {names}"
        case Settled():
            return f"acceptors {value.version} alone"
        case Roster():
            return f"roster {value.version}: {', '.join(value.members)}"
        case Batch():
            return f"{len(value.commands)} commands"
        case _:
            return "nothing, to fill a gap"
