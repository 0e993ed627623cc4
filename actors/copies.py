"""A copy of the whole state for a backup, page by page, and the hold on what it names.

The pages are those of `actors.snapshots`, but nothing is put together here: a gateway passes each
page on, so that its memory does not grow with the namespace. The coordinator is asked first,
because it is whom all other states are compared with (DESIGN section 4, rule 10), then the other
learners, then the stores of the view.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.calls import Copied, CopySnapshot, HoldChunks, Holding, Unavailable
from actors.effects import Answer, Milliseconds
from actors.messages import ChunkHold, SnapshotPage, SnapshotPull
from actors.snapshots import digest_of

if TYPE_CHECKING:
    from actors.client import Client

_ASK_AGAIN_MS = 2_000
_TOO_OLD_AGAIN_MS = 300


@dataclass(slots=True)
class Copying:
    """A page that was asked for and has not come."""

    call: CopySnapshot
    deadline: Milliseconds
    source: str
    slot: int
    page: int
    ask_again_at: Milliseconds
    turn: int = 0
    trouble: str = ""


class Copies:
    """The pages that one client waits for."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._copying: dict[int, Copying] = {}

    @property
    def busy(self) -> bool:
        """Whether any page is waited for."""
        return bool(self._copying)

    def hold(self, call: HoldChunks) -> None:
        """Also stores outside the view are told: they may be in it when a chunk is asked for."""
        client = self._client
        for store in client.options.names("store"):
            client._send(store, ChunkHold(for_ms=call.for_ms))
        client.out.answers.append(Answer(call.token, Holding()))

    def copy(self, call: CopySnapshot) -> None:
        """Ask for a page."""
        client = self._client
        named = call.source.partition("/")[0]
        goes_on = call.slot > 0 and named in self._sources()
        copying = Copying(
            call=call,
            deadline=client.now + client.options.request_deadline_ms,
            source=named if goes_on else self._sources()[0],
            slot=call.slot if goes_on else 0,
            page=call.page if goes_on else 0,
            ask_again_at=client.now + _ASK_AGAIN_MS,
        )
        self._copying[call.token] = copying
        self._ask(copying)

    def _sources(self) -> tuple[str, ...]:
        view = self._client.view or self._client.genesis.view
        learners = self._client.options.names("learner")
        others = tuple(name for name in learners if name != view.coordinator)
        return (view.coordinator, *others, *self._client.stores)

    def _ask(self, copying: Copying) -> None:
        pull = SnapshotPull(slot=copying.slot, page=copying.page)
        self._client._send(copying.source, pull)

    def on_page(self, sender: str, message: SnapshotPage) -> None:
        """The page that was asked for, or the first one of another state; all else is late."""
        client = self._client
        waiting = [c for c in self._copying.values() if c.source == sender]
        if waiting and digest_of(message.rows) != message.digest:
            client.counters["snapshot_pages_refused"] += 1
            for copying in waiting:
                self._put_off(copying, f"a page of {sender} was damaged on its way")
            return
        for copying in waiting:
            expected = (message.slot, message.page) == (copying.slot, copying.page)
            if not expected and (message.page or message.slot < copying.slot):
                continue
            if message.slot < copying.call.at_least:
                self._put_off(copying, f"{sender} is only at slot {message.slot}")
                continue
            del self._copying[copying.call.token]
            # Two starts of one replica may list the same state in another order.
            source = f"{sender}/{client.sender_disk}/{client.sender_incarnation}"
            client.out.answers.append(Answer(copying.call.token, Copied(source, message)))

    def _put_off(self, copying: Copying, trouble: str) -> None:
        copying.trouble = trouble
        copying.ask_again_at = self._client.now + _TOO_OLD_AGAIN_MS

    def tick(self) -> None:
        """Ask somebody else for a state of theirs; give up what took too long."""
        now = self._client.now
        for token in sorted(self._copying):
            copying = self._copying[token]
            if now >= copying.deadline:
                del self._copying[token]
                cause = copying.trouble or f"{copying.source} did not answer"
                gone = Unavailable(f"no replica sent its state ({cause})", "a read")
                self._client.out.answers.append(Answer(token, gone))
            elif now >= copying.ask_again_at:
                copying.turn += 1
                sources = self._sources()
                copying.source = sources[copying.turn % len(sources)]
                copying.slot = copying.page = 0
                copying.ask_again_at = now + _ASK_AGAIN_MS
                self._ask(copying)
