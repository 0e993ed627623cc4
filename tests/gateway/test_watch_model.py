"""Whatever the stores do and wherever a watcher resumes: each change once, in order, or `reset`.

The watch is the real one, and so are the stores' changes and answers. The stores lag, restart and
refuse at random, on a clock of its own that jumps, so that a run takes milliseconds.
"""

import asyncio
import contextlib
import json
import selectors
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.calls import Call, NotDone, Read, ReadDone
from actors.messages import ReadReply, ReadRequest
from actors.state.namespace import Namespace
from actors.store.changes import Change, Changes
from actors.store.reads import answer_changes
from actors.values import NOOP, AnyValue, Batch, Command, Outcome, Transaction
from gateway.callers import ADMINISTRATOR
from gateway.cluster import Cluster
from gateway.http.problems import Problem
from gateway.http.watch import Position, WatchEndpoint, _Watcher, concerns
from tests.worlds import put

_PREFIXES = ("", "a", "a/", "b/x", "nowhere")
_PATHS = ("a", "a/1", "a/2", "b/x", "b/y")
_WAIT_S = 1.0
"""As a store waits for the first change that is asked for."""


_WHOLE = 10**9


def _mark(id: str) -> Position:
    """The state of a client that has seen the event of that id."""
    slot, _, ordinal = id.partition(".")
    return Position(int(slot), int(ordinal) if ordinal else _WHOLE)


class _Jumping(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when there is nothing else to do."""

    def __init__(self) -> None:
        super().__init__(selectors.DefaultSelector())
        self._now_s = 0.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            self._now_s += timeout or 0.0
            return select(0)

        selector.select = jump

    def time(self) -> float:
        return self._now_s


class _Slot(NamedTuple):
    value: AnyValue
    outcomes: tuple[Outcome, ...]


class _Stores:
    """A log that grows, and three stores that follow it at random."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.log: list[_Slot] = []
        kept = random.choice((2, 6, 10_000))
        self.stores = [Changes(kept=kept) for _ in range(3)]
        self.calm = False
        """Whether nothing happens any more but that the stores catch up."""

    @property
    def newest(self) -> int:
        return len(self.log)

    def grow(self) -> None:
        slot = self.newest + 1
        if self._random.random() < 0.2:
            self.log.append(_Slot(NOOP, ()))
            return
        commands, outcomes = [], []
        for index in range(self._random.randint(1, 3)):
            steps = tuple(
                put(self._random.choice(_PATHS), b"") for _ in range(self._random.randint(1, 3))
            )
            commands.append(
                Command(
                    session="s",
                    sequence=slot * 10 + index,
                    acknowledged=-1,
                    reply_to="gateway-1",
                    operation=Transaction(steps=steps),
                )
            )
            status = "done" if self._random.random() < 0.8 else "aborted"
            outcomes.append(
                Outcome.model_validate({"status": status, "slot": slot, "index": index})
            )
        self.log.append(_Slot(Batch(commands=tuple(commands)), tuple(outcomes)))

    def catch_up(self, store: Changes, through: int) -> None:
        for slot in range(store.last + 1, through + 1):
            store.note(slot, *self.log[slot - 1])

    def happen(self) -> None:
        """Something, or nothing, comes between two messages."""
        draw = self._random.random()
        store = self._random.choice(self.stores)
        if self.calm:
            self.catch_up(store, self.newest)
        elif draw < 0.3:
            self.grow()
        elif draw < 0.7:
            self.catch_up(store, self._random.randint(store.last, self.newest))
        elif draw < 0.75:
            store.restart(self._random.randint(store.last, self.newest))

    async def call(self, make: Callable[[int], Call], timeout_s: float | None = None) -> Any:
        call = make(1)
        assert isinstance(call, Read)
        self.happen()
        await asyncio.sleep(self._random.choice((0.0, 0.01, 0.3)))
        if not self.calm and self._random.random() < 0.1:
            return NotDone("no store", "a read changes nothing")
        return ReadDone("store-1", await self._answer(call.request))

    async def _answer(self, request: ReadRequest) -> ReadReply:
        store = self._random.choice(self.stores)
        if request.what == "entry":
            # Linearizable: what was acknowledged is applied here, and a bit more may be.
            self.catch_up(store, self.newest)
            return ReadReply(number=1, status="absent", applied=store.last)
        for _ in range(4):
            if store.last >= request.at_least:
                break
            await asyncio.sleep(_WAIT_S / 4)
            self.happen()
        return answer_changes(Namespace(), store, request)

    def changes(self) -> list[Change]:
        """All that ever changed, as a store tells it that forgot nothing."""
        whole = Changes()
        self.catch_up(whole, self.newest)
        return list(whole.since(0, 10_000)[0])


class _Client:
    """The events of a watcher of one prefix, over all its connections."""

    def __init__(self, stores: _Stores, watch: WatchEndpoint, random: Random, prefix: str) -> None:
        self._stores = stores
        self._watch = watch
        self._random = random
        self._prefix = prefix
        self.last_id = ""
        self.known = Position(0, 0)
        """Up to here every change was sent, or a `reset` said that some were missed."""
        self.told: list[tuple[int, int]] = []
        self.resets = 0

    async def listen(self, until: Callable[[], bool]) -> None:
        """Take events, on new connections now and then, until `until`."""
        while not until():
            try:
                events = self._connect(await self._watch._newest())
            except Problem:
                await asyncio.sleep(1)  # Refused: it tries again.
                continue
            async for id, kind, data in events:
                self._take(id, kind, data)
                if until() or (not self._stores.calm and self._random.random() < 0.15):
                    break
            await events.aclose()  # type: ignore[attr-defined]

    async def _connect(self, newest: int) -> AsyncIterator[tuple[str, str, Any]]:
        mark = _mark(self.last_id) if self.last_id else None
        pieces = self._watch._events(ADMINISTRATOR, self._prefix, mark, newest, _Watcher())
        try:
            async for piece in pieces:
                for block in piece.decode().split("\n\n")[:-1]:
                    fields = dict(line.partition(": ")[::2] for line in block.splitlines())
                    if "id" in fields:
                        data = json.loads(fields["data"]) if "data" in fields else None
                        yield fields["id"], fields.get("event", ""), data
        finally:
            await pieces.aclose()

    def _take(self, id: str, kind: str, data: Any) -> None:
        first = not self.last_id
        self.last_id = id
        mark = _mark(id)
        if kind == "reset" or (kind == "ready" and first):
            self.resets += kind == "reset"
            self.known = mark
            return
        if kind == "ready":
            return  # It repeats where the client stands.
        expected = [
            (change.slot, change.ordinal)
            for change in self._stores.changes()
            if self.known < (change.slot, change.ordinal) <= mark and concerns(change, self._prefix)
        ]
        assert expected == ([tuple(mark)] if kind == "change" else []), (
            f"{kind} {id} came, after {self.known} there were {expected}"
        )
        if kind == "change":
            assert (data["slot"], data["path"].startswith(self._prefix)) == (mark.slot, True)
            self.told.append((mark.slot, mark.ordinal))
        assert mark >= self.known, f"{id} came after {self.known}"
        self.known = mark


def _position(random: Random, newest: int) -> str:
    """An id to come back with: within a slot, at its end, of another cluster; or none."""
    slot = random.choice((random.randint(0, newest), random.randint(0, newest), newest, 10**6))
    return random.choice(("", f"{slot}", f"{slot}.0", f"{slot}.1", f"{slot}.7"))


async def _watch_until_all_is_told(seed: int, prefixes: list[str]) -> None:
    random = Random(seed)
    stores = _Stores(random)
    for _ in range(random.randint(0, 6)):
        stores.grow()
    watch = WatchEndpoint(Cluster(stores, 1_000))
    clients = [_Client(stores, watch, random, prefix) for prefix in prefixes]
    for client in clients:
        client.last_id = _position(random, stores.newest)
        client.known = _mark(client.last_id) if client.last_id else Position(0, 0)
    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.listen(lambda: stores.newest > 12))
    stores.calm = True

    def knows_all(client: _Client) -> Callable[[], bool]:
        return lambda: client.known == (stores.newest, _WHOLE)

    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.listen(knows_all(client)))
    told = [list(client.told) for client in clients]
    # A quiet cluster has nothing to tell again.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.listen(lambda: False))
    assert [client.told for client in clients] == told


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(_PREFIXES), min_size=1, max_size=3))
@example(seed=2906989, prefixes=[""])
def test_each_change_is_sent_once_and_in_order_or_a_reset_says_that_some_were_missed(
    seed: int, prefixes: list[str]
) -> None:
    """Given lagging stores and watchers that resume anywhere, then none misses a change unaware,
    and once the cluster is quiet none receives a change again.
    """
    with asyncio.Runner(loop_factory=_Jumping) as runner:
        runner.run(_watch_until_all_is_told(seed, prefixes))
