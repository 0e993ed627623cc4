"""`GET /v1/watch?prefix=`: changes of files as server-sent events, in the order of the log.

The stores keep the changes of the latest slots (`actors.store.changes`); a gateway asks one of them
for the changes after the slot it knows, and the store answers when there are some. So nothing rests
on a notification: a lost message costs a second. An event's id is its slot and its number within
the slot, the same at every gateway, so `Last-Event-ID` works across gateways and restarts. If no
store remembers that far back, the gateway sends `reset`: the client reads the files again, then
continues from there.

The cost of watchers is bounded: their number, the bytes that wait for slow readers, and the
queries to the stores. A watcher that reads too slowly is disconnected, and continues where it was
when it reconnects.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from actors.messages import ReadReply, ReadRequest
from actors.state.rights import Need
from actors.store.changes import Change
from actors.values import Principal
from gateway.callers import ADMINISTRATOR, Caller, caller_of, forbidden
from gateway.cluster import RETRY_AFTER, Cluster
from gateway.http.files import ResponseCutOff
from gateway.http.headers import query_fields
from gateway.http.metadata import served_content_type
from gateway.http.parameters import LAST_EVENT_ID, WATCH_AFTER, WATCH_PREFIX
from gateway.http.problems import (
    FORBIDDEN,
    INVALID_HEADER,
    INVALID_PATH,
    UNAUTHORIZED,
    UNAVAILABLE,
    Problem,
)
from observability.safe_text import json_text, visible
from synod.paths import InvalidPath, checked_path

_ID = re.compile(r"(?P<slot>[0-9]{1,18})(?:\.(?P<ordinal>[0-9]{1,9}))?")
_PAGE = 1000
_POLL_S = 0.25
"""Pages are requested at multiples of this on the loop's clock, so that changes that happen close
together travel together, and watchers at the same slot stay at the same slot.
"""

_RETRY_S = 1.0
_KEEPALIVE_S = 5.0
"""The longest time without sending: only by sending does the gateway notice that a client is gone,
because a client that closed its sending side may still read.
"""

_STORES_ASKED = 6
_OPENING = b"retry: 1000\n\n"

WATCHERS_MAX = 1_000
"""Each costs a connection and the filtering of every page."""

_PIECE_BYTES = 64 * 1024
"""How much is passed to the server at once; it holds a piece until the client takes it."""

_SEND_TIMEOUT_S = 30.0
"""A watcher that does not take a piece for this long is disconnected."""

_HELD_BYTES_MAX = 32 * 1024 * 1024
"""The size of all pages that watchers have not fully taken yet. Above it no watcher gets the next
page, and one that has held a page for `_HELD_S_MAX` is disconnected.
"""

_HELD_S_MAX = 1.0
_QUERIES_MAX = 16
"""How many queries run at a time: each answer is a page that no watcher holds yet."""

_SELECTIONS_KEPT = 16
"""Selections of a page, one for each prefix; a selection only references the page's events."""


class Position(NamedTuple):
    """A watcher's position: it got all slots below `slot`, and the changes of `slot` up to
    `ordinal`.
    """

    slot: int
    ordinal: int

    @property
    def id(self) -> str:
        """The position as an event's id."""
        return f"{self.slot}" if self.ordinal == _WHOLE else f"{self.slot}.{self.ordinal}"


_WHOLE = 1_000_000_000
"""An ordinal above that of any change: the watcher got the whole slot."""


class _ChangePage:
    """A store's answer, and its events as the stream sends them: encoded once for all watchers."""

    def __init__(self, reply: ReadReply) -> None:
        self.reply = reply
        self._events = [
            _event("change", Position(change.slot, change.ordinal).id, change_json(change))
            for change in reply.changes
        ]
        self._selections: dict[tuple[Position, str], list[bytes]] = {}
        self.size_bytes = 2 * sum(map(len, self._events))
        """The events and the changes that they report."""

    def events(self, mark: Position, prefix: str) -> list[bytes]:
        """The events for a watcher of `prefix` that got everything up to `mark`."""
        found = self._selections.get((mark, prefix))
        if found is None:
            found = [
                event
                for change, event in zip(self.reply.changes, self._events, strict=True)
                if (change.slot, change.ordinal) > mark and concerns(change, prefix)
            ]
            if len(self._selections) < _SELECTIONS_KEPT:
                self._selections[mark, prefix] = found
        return found


@dataclass(slots=True, eq=False)
class _Watcher:
    """The page that waits for one watcher."""

    page: _ChangePage | None = None
    since_s: float = 0.0
    """Since when it holds the page, on the loop's clock."""
    send_timeout: asyncio.Timeout | None = None
    """Ends its connection; set while it is to take a piece."""

    def hold(self, page: _ChangePage) -> None:
        """The watcher holds the page from now on."""
        self.page, self.since_s = page, asyncio.get_running_loop().time()

    def disconnect(self) -> None:
        """End the connection, if a piece waits for the watcher."""
        if self.send_timeout is not None:
            self.send_timeout.reschedule(asyncio.get_running_loop().time())
            self.send_timeout = None


class _Watchers:
    """The pages that wait for all watchers together."""

    def __init__(self) -> None:
        self._all: dict[_Watcher, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def bytes(self) -> int:
        """The size of the held pages; one that several watchers hold counts once."""
        pages = {id(one.page): one.page.size_bytes for one in self._all if one.page is not None}
        return sum(pages.values())

    def open(self) -> _Watcher:
        """Add a watcher. Raises `Problem` if there are too many."""
        if len(self._all) >= WATCHERS_MAX:
            raise Problem(
                UNAVAILABLE,
                f"this gateway serves {WATCHERS_MAX} watchers, which is its limit: try "
                "again later, or another gateway",
                headers=RETRY_AFTER,
            )
        watcher = _Watcher()
        self._all[watcher] = None
        return watcher

    def close(self, watcher: _Watcher) -> None:
        """Remove a watcher that has ended."""
        del self._all[watcher]

    async def wait_for_memory(self) -> None:
        """Wait until another page may be held; meanwhile disconnect watchers that are too slow."""
        loop = asyncio.get_running_loop()
        while self.bytes > _HELD_BYTES_MAX:
            for watcher in self._all:
                if watcher.page is not None and loop.time() - watcher.since_s >= _HELD_S_MAX:
                    watcher.disconnect()
            await asyncio.sleep(_POLL_S)


class _EventStream(StreamingResponse):
    """The response to one watcher, which is disconnected if it does not read what it is sent."""

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        watcher: _Watcher,
        closed: Callable[[_Watcher], None],
    ) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )
        self._events = events
        self._watcher = watcher
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""

        async def send_in_time(message: Any) -> None:
            try:
                async with asyncio.timeout(_SEND_TIMEOUT_S) as self._watcher.send_timeout:
                    await send(message)
            except TimeoutError:
                raise ResponseCutOff("a watcher reads too slowly") from None
            finally:
                self._watcher.send_timeout = None

        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            self._closed(self._watcher)
            await self._events.aclose()


class _QueryAbandoned(Exception):
    """The watcher that requested the page is gone; another one must request it."""


class WatchEndpoint:
    """The endpoint. Watchers at the same slot share one query to the stores."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._queries: dict[tuple[Principal | None, int], asyncio.Future[_ChangePage]] = {}
        self._query_slots = asyncio.Semaphore(_QUERIES_MAX)
        self.watchers = _Watchers()
        self._ended = False

    def end(self) -> None:
        """End all streams within about a second; reconnecting clients continue where they were."""
        self._ended = True

    async def watch(self, request: Request) -> Response:
        """Send the changes below a prefix until the client disconnects. Raises `Problem`."""
        query = query_fields(request.scope)
        prefix = WATCH_PREFIX.of(query).removeprefix("/")
        try:
            checked_path(prefix.removesuffix("/"))
        except InvalidPath as error:
            raise Problem(INVALID_PATH, f"{error}") from None
        known = request.headers.get(LAST_EVENT_ID.key) or query.get(WATCH_AFTER.key)
        mark = None
        if known is not None:
            found = _ID.fullmatch(known)
            if found is None:
                raise Problem(INVALID_HEADER, f"Last-Event-ID is no id of this stream: {known!a}")
            ordinal = found["ordinal"]
            mark = Position(int(found["slot"]), _WHOLE if ordinal is None else int(ordinal))
        caller = caller_of(request.scope)
        if not (await self._cluster.rights_of(caller)).leads_on(""):
            raise forbidden(Need("read", prefix).text)
        watcher = self.watchers.open()
        try:
            newest = await self._newest()
            if mark is not None and mark.slot > newest:
                # A slot without commands may have reached one store before another.
                await asyncio.sleep(_RETRY_S)
                newest = await self._newest()
        except BaseException:
            self.watchers.close(watcher)
            raise
        events = self._events(caller, prefix, mark, newest, watcher)
        return _EventStream(events, watcher, self.watchers.close)

    async def _events(
        self,
        caller: Caller,
        prefix: str,
        known: Position | None,
        newest: int,
        watcher: _Watcher,
    ) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        mark = known or Position(newest, _WHOLE)
        yield _OPENING + _event("ready", mark.id, {"slot": mark.slot, "prefix": prefix})
        if mark.slot > newest:
            mark = Position(newest, _WHOLE)
            about = {"slot": newest, "reason": "the id is of another cluster: no such slot is here"}
            yield _event("reset", mark.id, about)
        sent_at = loop.time()
        while not self._ended:
            await self.watchers.wait_for_memory()
            try:
                page = await self._since(caller, mark)
            except Problem as problem:
                if problem.kind in (UNAUTHORIZED, FORBIDDEN):
                    return  # It was revoked while the stream was open.
                yield f": waiting, {visible(problem.detail)}\n\n".encode()
                await asyncio.sleep(_RETRY_S)
                continue
            reply = page.reply
            if reply.status == "forgotten":
                mark = Position(reply.applied, _WHOLE)
                about = {"slot": mark.slot, "reason": reply.detail}
                yield _event("reset", mark.id, about)
                continue
            watcher.hold(page)
            events = list(page.events(mark, prefix))
            through = Position(reply.applied, _WHOLE)
            # Also of the slot of `mark`: a client that came back within a slot knows part of it,
            # and while nothing follows, the same page would come again and again.
            if through > mark:
                mark = through
                # An id alone is no event, but moves the client's Last-Event-ID on.
                events.append(f"id: {mark.id}\n\n".encode())
            if not events and loop.time() - sent_at > _KEEPALIVE_S:
                events.append(b": nothing new\n\n")
            if events:
                sent_at = loop.time()
            for piece in _pieces(events):
                yield piece
            watcher.page = None
            del page, reply, events
            await asyncio.sleep(_POLL_S - loop.time() % _POLL_S)

    async def _since(self, caller: Caller, mark: Position) -> _ChangePage:
        """The changes after `mark` that the caller may see, or that no store asked remembers them.
        Raises `Problem`.
        """
        at_least = mark.slot + 1 if mark.ordinal == _WHOLE else mark.slot
        asked = (caller.principal, at_least)
        while True:
            running = self._queries.get(asked)
            if running is None:
                break
            try:
                return await asyncio.shield(running)
            except _QueryAbandoned:
                continue
        future = self._queries[asked] = asyncio.get_running_loop().create_future()
        try:
            async with self._query_slots:
                page = _ChangePage(await self._ask(caller, at_least))
        except BaseException as error:
            future.set_exception(error if isinstance(error, Problem) else _QueryAbandoned())
            future.exception()  # No other request may be waiting for it.
            raise
        finally:
            del self._queries[asked]
        future.set_result(page)
        return page

    async def _ask(self, caller: Caller, at_least: int) -> ReadReply:
        """Ask the stores in turn: a restarted one has forgotten changes that others may know."""
        forgot: ReadReply | None = None
        for _ in range(_STORES_ASKED):
            reply = await self._read(caller, at_least)
            if reply.status != "forgotten":
                return reply
            if forgot is None or reply.applied > forgot.applied:
                forgot = reply
        assert forgot is not None
        return forgot

    async def _newest(self) -> int:
        """The slot of a linearizable read: changes acknowledged before it are not sent."""
        request = ReadRequest(number=0, what="entry", path="")
        return (await self._cluster.read(ADMINISTRATOR, request)).reply.applied

    async def _read(self, caller: Caller, at_least: int) -> ReadReply:
        request = ReadRequest(
            number=0, what="changes", at_least=at_least, limit=_PAGE, consistency="stale"
        )
        return (await self._cluster.read(caller, request)).reply


def concerns(change: Change, prefix: str) -> bool:
    """Whether `change` may change a path that starts with `prefix`."""
    ends = [change.path] if change.source is None else [change.source, change.path]
    if any(path.startswith(prefix) for path in ends):
        return True
    whole = change.kind in ("move", "copy", "remove_directory")
    return whole and any(prefix.startswith(f"{path}/") for path in ends)


def change_json(change: Change) -> dict[str, Any]:
    """A change as watchers receive it."""
    about = change.model_dump(mode="json", exclude_none=True, exclude={"ordinal"})
    if change.content_type is not None:
        about["content_type"] = served_content_type(change.content_type)
    if change.kind in ("put", "move", "copy"):
        about["etag"] = f"{change.slot}-{change.index}"
    return about


def _pieces(events: Iterable[bytes]) -> Iterator[bytes]:
    """The events in pieces of several; an event larger than a piece stands alone."""
    piece: list[bytes] = []
    size_bytes = 0
    for event in events:
        if piece and size_bytes + len(event) > _PIECE_BYTES:
            yield b"".join(piece)
            piece, size_bytes = [], 0
        piece.append(event)
        size_bytes += len(event)
    if piece:
        yield b"".join(piece)


def _event(kind: str, id: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\nid: {id}\ndata: {json_text(data)}\n\n".encode()
