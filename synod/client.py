"""The client library: `AsyncClient`, and `Client` for programs without an event loop.

Contents stream in both directions. Every write carries an Idempotency-Key, so that it can safely
be sent again after a lost answer, until `patience_s` has passed; downloads continue where the
connection broke::

    with Client() as synod:
        written = synod.put("notes/today.txt", b"hello")
        assert synod.read("notes/today.txt") == b"hello"
        synod.put("notes/today.txt", b"again", if_match=written.etag)
"""

import asyncio
import builtins
import contextlib
import hashlib
import importlib.util
import json
import sys
import uuid
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from synod.accounts import AccountCalls
from synod.arguments import check_members, check_steps, condition_headers, metadata_headers
from synod.bodies import Body, OnBytes, Pieces, Source, Stream
from synod.connection import Address, connecting, reason_of
from synod.entries import (
    Change,
    Entry,
    Written,
    change_of,
    entry_of_headers,
    entry_of_json,
    written_of,
    written_of_json,
)
from synod.errors import (
    Conflict,
    Damaged,
    InvalidRequest,
    Misconfigured,
    NotFound,
    NotSent,
    OutcomeUnknown,
    PreconditionFailed,
    ServerFailure,
    SynodError,
    Unreachable,
    refusal,
)
from synod.event_stream import server_sent
from synod.headers import digest_header, is_key
from synod.membership import REQUESTS, Action
from synod.outcomes import OutcomeTracker
from synod.paths import checked_path, path_to_url
from synod.retries import Retry, Waiting, after_read
from synod.tags import Tags
from synod.tls import ClientTls

__all__ = [
    "DEFAULT_URL",
    "AsyncClient",
    "Body",
    "Change",
    "Client",
    "Entry",
    "OnBytes",
    "Source",
    "Written",
]

DEFAULT_URL = "http://127.0.0.1:8080"
PATIENCE_S = 60.0
"""How long a write is retried before its error is raised."""
READ_PATIENCE_S = 15.0
"""The same for a read, which costs nothing to repeat later."""

# httpcore imports this optional module at every step of every request. Python searches the disk for
# a missing module each time, unless `sys.modules` records that it is missing.
if importlib.util.find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]

_WATCH_SILENT_S = 120.0
"""A gateway sends something more often than that, even if nothing changes."""

_T = TypeVar("_T")


class AsyncClient(AccountCalls):
    """A client of one gateway. Use it as a context manager, or close it.

    Without `token` it sends that of the environment (`SYNOD_TOKEN`); an empty token is not sent.
    `timeout_s` bounds how long a request is retried, and how long the client waits for an answer;
    without it writes are retried for `patience_s`, reads for at most `READ_PATIENCE_S`. `waiting`
    tells the user, once, what the client waits for. For https, PEM files name the CA to trust and
    the certificate to show; what is `None` comes from `SYNOD_CA_CERT`, `SYNOD_CLIENT_CERT` and
    `SYNOD_CLIENT_KEY`. Raises `Misconfigured`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        patience_s: float = PATIENCE_S,
        timeout_s: float | None = None,
        connections: int = 32,
        transport: httpx.AsyncBaseTransport | None = None,
        waiting: Waiting | None = None,
        ca_cert: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
    ) -> None:
        self._address = Address.of(url, token, ClientTls.of(ca_cert, client_cert, client_key))
        self.url = self._address.shown
        self._timeout_s = timeout_s
        self._patience_s = patience_s if timeout_s is None else timeout_s
        self._read_patience_s = min(patience_s, READ_PATIENCE_S) if timeout_s is None else timeout_s
        self._transport = transport
        self._waiting = waiting or Waiting()
        self.reached = False
        """Whether a gateway of Synod has answered; until then, a failed request is not repeated."""
        answer_s = PATIENCE_S if timeout_s is None else timeout_s
        with connecting(self._address):
            self._http = self._address.client(
                timeout=httpx.Timeout(30.0, connect=min(5.0, answer_s), read=answer_s, pool=None),
                limits=httpx.Limits(max_connections=connections),
                transport=transport,
            )

    def sibling(self) -> "AsyncClient":
        """Another client of the same gateway, with connections of its own.

        httpx scans all connections of a client several times for each request, so many concurrent
        tasks are faster with a client each.
        """
        other = AsyncClient(
            self._address.url,
            token=self._address.token,
            patience_s=self._patience_s,
            timeout_s=self._timeout_s,
            connections=1,
            transport=self._transport,
            waiting=self._waiting,
            ca_cert=self._address.tls.ca_cert,
            client_cert=self._address.tls.client_cert,
            client_key=self._address.tls.client_key,
        )
        other.reached = self.reached
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # -- files ------------------------------------------------------------------------------------

    async def put(
        self,
        path: str,
        body: Body,
        *,
        content_type: str | None = None,
        modified_ms: int | None = None,
        executable: bool = False,
        meta: Mapping[str, str] | None = None,
        if_match: Tags = None,
        if_none_match: Tags = None,
        key: str | None = None,
        on_bytes: OnBytes | None = None,
    ) -> Written:
        """Create or replace a file. A condition is a tag, bare or as in headers, a list, or `*`.

        Raises `SynodError`; `InvalidRequest` before anything is sent if an argument is invalid.
        """
        headers = condition_headers(if_match, if_none_match)
        headers |= metadata_headers(content_type, modified_ms, executable, meta)
        if isinstance(body, bytes):
            headers["repr-digest"] = digest_header(hashlib.sha256(body).hexdigest())
            headers["content-length"] = str(len(body))
        elif isinstance(body, Source):
            headers["content-length"] = str(body.size)
        answer = await self._write("PUT", _file_url(path), headers, key, body, on_bytes)
        return self._written(written_of, answer)

    async def read(self, path: str, *, stale: bool = False, at_least: int = 0) -> bytes:
        """The contents of a file, whole in memory. Raises `SynodError`."""
        parts: list[bytes] = []
        await self.download(path, parts.append, stale=stale, at_least=at_least)
        return b"".join(parts)

    async def download(
        self,
        path: str,
        sink: Callable[[bytes], Any],
        *,
        stale: bool = False,
        at_least: int = 0,
    ) -> Entry:
        """Pass a file's bytes to `sink`, in order. Raises `SynodError`.

        If the connection breaks, the client requests the rest of the same version. The bytes are
        certain only after the return, because their digest is compared at the end.
        """
        headers: dict[str, str] = {}
        digest = hashlib.sha256()
        received = 0
        retry = Retry(self._read_patience_s)
        while True:
            request = self._http.build_request(
                "GET", _file_url(path), params=_consistency(stale, at_least), headers=headers
            )
            try:
                response = await self._answer(request, retry, stream=True, read=repr(path))
            except PreconditionFailed:
                raise Damaged(f"{path!r} was replaced while it was read; try again") from None
            with self._understood():
                entry = entry_of_headers(path, response.headers)
            broken = "the connection ended early"
            try:
                async for piece in response.aiter_raw():
                    sink(piece)
                    digest.update(piece)
                    received += len(piece)
                    retry.moved()
            except httpx.TransportError as error:
                broken = reason_of(error)
            finally:
                await response.aclose()
            if received >= entry.size:
                break
            await retry.pause(Damaged(f"the transfer of {path!r} broke off: {broken}"))
            headers = {"range": f"bytes={received}-", "if-match": f'"{entry.etag}"'}
        if not entry.sha256:
            raise Damaged(f"the answer names no SHA-256 of {path!r}: its bytes can't be checked")
        if received != entry.size or digest.hexdigest() != entry.sha256:
            raise Damaged(f"the received bytes of {path!r} don't match its digest; try again")
        return entry

    async def delete(self, path: str, *, if_match: Tags = None, key: str | None = None) -> Written:
        """Remove a file. Raises `SynodError`."""
        headers = condition_headers(if_match)
        answer = await self._write("DELETE", _file_url(path), headers, key)
        return self._written(written_of, answer)

    async def stat(self, path: str) -> Entry:
        """The file or directory at `path`. Raises `SynodError`."""
        if not path:
            return Entry("", is_directory=True)
        try:
            response = await self._read("HEAD", _file_url(path), read=repr(path))
        except Conflict:
            return Entry(path, is_directory=True)
        except NotFound:  # The response to a HEAD has no body with the reason.
            raise NotFound(f"there is no file or directory {path!r}") from None
        with self._understood():
            return entry_of_headers(path, response.headers)

    # -- several paths at once --------------------------------------------------------------------

    async def move(
        self, source: str, target: str, *, key: str | None = None, **options: Any
    ) -> Written:
        """Move a file or a directory with all below it, as one change. Raises `SynodError`.

        `options`: `overwrite` replaces a file or an empty directory at the target; `if_match` and
        `if_none_match` are conditions on the source, `target_if_match` and `target_if_none_match`
        on the target.
        """
        body = {"source": source, "target": target, **options}
        check_members(body)
        return self._written(written_of_json, await self._post("/v1/move", body, key))

    async def copy(
        self, source: str, target: str, *, key: str | None = None, **options: Any
    ) -> Written:
        """Copy a file or a directory, as one change, without moving bytes. See `move`."""
        body = {"source": source, "target": target, **options}
        check_members(body)
        return self._written(written_of_json, await self._post("/v1/copy", body, key))

    async def transaction(
        self, steps: Iterable[Mapping[str, Any]], *, key: str | None = None
    ) -> Written:
        """Run all steps or none; see `docs/transactions.md`. Raises `SynodError`."""
        body = {"steps": [dict(step) for step in steps]}
        check_steps(body["steps"])
        return self._written(written_of_json, await self._post("/v1/transactions", body, key))

    async def watch(self, prefix: str = "", *, after: str = "") -> AsyncIterator[Change]:
        """Changes of the paths that begin with `prefix`, from now on or after an earlier change's
        id. Continues after a lost connection; a change of the kind `reset` says that some may have
        been missed. Raises `SynodError`.
        """
        checked_path(prefix.removeprefix("/").removesuffix("/"))
        if after and not is_key(after):
            raise InvalidRequest(f"{after!a} is no id of a change")
        retry = Retry(self._patience_s)
        while True:
            headers = {"last-event-id": after} if after else {}
            request = self._http.build_request(
                "GET", "/v1/watch", params={"prefix": prefix}, headers=headers
            )
            request.extensions["timeout"]["read"] = _WATCH_SILENT_S
            try:
                async with asyncio.timeout(self._patience_s):
                    response = await self._answer(request, retry, stream=True)
            except TimeoutError:
                raise Unreachable(f"no answer from {self.url}: it took too long") from None
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                await response.aclose()
                raise self._stranger()
            try:
                async for id, event, data in server_sent(response):
                    after, retry = id or after, Retry(self._patience_s)
                    with self._understood():
                        change = change_of(id, event, data)
                    if change is not None:
                        yield change
            except httpx.DecodingError as failure:
                raise self._address.error_of(failure) from None
            except httpx.TransportError:
                pass  # Lost, or silent for too long: the next request continues after `after`.
            finally:
                await response.aclose()
            await retry.pause(Unreachable(f"{self.url} ends the watch repeatedly"))

    # -- directories ------------------------------------------------------------------------------

    async def list(self, path: str, *, page: int = 1000) -> AsyncIterator[Entry]:
        """The entries of a directory by name. Raises `SynodError`."""
        after: str | None = ""
        while after is not None:
            params = {"after": after, "limit": str(page)}
            answer = await self._read("GET", _directory_url(path), params, read=repr(path or "/"))
            with self._understood():
                listing = answer.json()
                entries = [entry_of_json(item) for item in listing["entries"]]
                after = listing["next"]
            for entry in entries:
                yield entry

    async def make_directory(self, path: str, *, key: str | None = None) -> Written:
        """Make a directory and its missing parents. Raises `SynodError`."""
        answer = await self._write("PUT", _directory_url(path), {}, key)
        return self._written(written_of, answer)

    async def remove_directory(
        self, path: str, *, recursive: bool = False, key: str | None = None
    ) -> Written:
        """Remove a directory. Raises `SynodError`."""
        url = _directory_url(path) + ("?recursive=true" if recursive else "")
        return self._written(written_of, await self._write("DELETE", url, {}, key))

    # -- the cluster ------------------------------------------------------------------------------

    async def cluster(self) -> dict[str, Any]:
        """The cluster's state as the gateway knows it. Raises `SynodError`."""
        return await self._item("GET", "/v1/cluster")

    async def result(self, request: str) -> dict[str, Any]:
        """The result of a write, by its request id. Raises `SynodError`."""
        url = f"/v1/requests/{quote(request, safe='')}"
        return await self._item("GET", url)

    async def log(self, before: int = 0, limit: int = 100) -> dict[str, Any]:
        """The newest slots of the log below `before` (0: of all). Raises `SynodError`."""
        params = {"before": str(before), "limit": str(limit)}
        return await self._item("GET", "/v1/log", params)

    async def trace(self, request: str) -> dict[str, Any]:
        """The trace of a request, message by message. Raises `SynodError`."""
        url = f"/v1/traces/{quote(request, safe='')}"
        return await self._item("GET", url)

    async def traces(self) -> dict[str, Any]:
        """The newest traced requests. Raises `SynodError`."""
        return await self._item("GET", "/v1/traces")

    async def record(self, order: dict[str, Any]) -> dict[str, Any]:
        """Change what every node records; see `docs/api.md`. Raises `SynodError`."""
        return await self._item("POST", "/v1/traces", json=order)

    # -- quotas -----------------------------------------------------------------------------------

    async def quotas(self, path: str = "") -> builtins.list[dict[str, Any]]:
        """The quotas at and below `path`, and what is used of them. Raises `SynodError`."""
        page = await self._item("GET", f"/v1/quotas/{path_to_url(checked_path(path))}")
        with self._understood():
            found: builtins.list[dict[str, Any]] = page["quotas"]
        return found

    async def set_quota(
        self,
        path: str,
        *,
        entries: int | None = None,
        bytes: int | None = None,
        key: str | None = None,
    ) -> Written:
        """Bound the entries below `path`, and the bytes of their contents; `None`: any number.
        Raises `SynodError`.
        """
        body = json.dumps({"entries": entries, "bytes": bytes}).encode()
        headers = {"content-type": "application/json"}
        url = f"/v1/quotas/{path_to_url(checked_path(path))}"
        return self._written(written_of, await self._write("PUT", url, headers, key, body))

    async def remove_quota(self, path: str, *, key: str | None = None) -> Written:
        """Remove the quota of `path`. Raises `SynodError`."""
        url = f"/v1/quotas/{path_to_url(checked_path(path))}"
        return self._written(written_of, await self._write("DELETE", url, {}, key))

    # -- the audit, see `synod.audit` --------------------------------------------------------------

    async def audit(self, **asked: str | int) -> dict[str, Any]:
        """A page of the records of who did what; the parameters are those of `GET /v1/audit`.
        Raises `SynodError`.
        """
        params = {name: str(value) for name, value in asked.items()}
        return await self._item("GET", "/v1/audit", params)

    async def refusals(self, limit: int = 100) -> dict[str, Any]:
        """What the gateway refused lately, and who logged in. Raises `SynodError`."""
        return await self._item("GET", "/v1/audit/refusals", {"limit": str(limit)})

    # -- membership --------------------------------------------------------------------------------

    async def members(self) -> dict[str, Any]:
        """The members of all roles and the changes that are under way, as in `/openapi.json`;
        `synod.membership` reads it. Raises `SynodError`.
        """
        return await self._item("GET", "/v1/members")

    async def change_member(self, action: Action, name: str) -> int:
        """Have a member replaced, added or removed; the version, of the acceptors or of the roster,
        that was begun. Raises `SynodError`: `Conflict` if it is refused.
        """
        method, path = REQUESTS[action]
        answer = await self._item(method, path.format(name=quote(name, safe="")))
        with self._understood():
            return int(answer["version"])

    # -- backup, see `gateway.backup.take` ---------------------------------------------------------

    async def begin_backup(self) -> dict[str, Any]:
        """Have the stores keep what a backup copies, for a time; repeat it before that ends."""
        return await self._item("POST", "/v1/backup")

    async def backup_rows(self, **place: str | int) -> dict[str, Any]:
        """A page of the whole state. Raises `SynodError`."""
        params = {name: str(value) for name, value in place.items()}
        return await self._item("GET", "/v1/backup/rows", params)

    async def chunk(self, sha256: str) -> bytes:
        """A chunk, checked against its name. Raises `SynodError`."""
        data = (await self._read("GET", f"/v1/chunks/{sha256}")).content
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Damaged(f"the received bytes of the chunk {sha256} don't match its name")
        return data

    # -- sending ----------------------------------------------------------------------------------

    async def _read(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None = None,
        *,
        json: Any = None,
        read: str = "",
    ) -> httpx.Response:
        """Send a request that changes no file. `read` names what it asks for."""
        request = self._http.build_request(method, url, params=params, json=json)
        retry = Retry(self._read_patience_s)
        return await self._answer(request, retry, read=read or url)

    async def _once(self, method: str, url: str, json: Any) -> httpx.Response:
        """Send a write that must not be repeated: each copy would make a secret of its own, and
        only the last one's would arrive.
        """
        request = self._http.build_request(method, url, json=json)
        try:
            return await self._answer(request, Retry(self._patience_s), attempts=1)
        except (Unreachable, OutcomeUnknown) as error:
            error.undecided = not isinstance(error, NotSent)
            raise

    async def _item(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> dict[str, Any]:
        response = await self._read(method, url, params, json=json)
        with self._understood():
            item = response.json()
            if not isinstance(item, dict):
                raise TypeError
        return item

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        """A response that can't be read comes from another server, or another version."""
        try:
            yield
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            raise self._stranger() from None

    def _stranger(self) -> ServerFailure:
        return ServerFailure(
            f"the server at {self.url} is no gateway of Synod, or of another version; see --url, "
            "SYNOD_URL and the proxies"
        )

    def _written(
        self, read: Callable[[httpx.Response], Written], answer: httpx.Response
    ) -> Written:
        try:
            with self._understood():
                written = read(answer)
                if not written.slot:
                    raise LookupError
                return written
        except ServerFailure as error:
            error.undecided = True
            raise

    async def _write(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        key: str | None,
        body: Body | None = None,
        on_bytes: OnBytes | None = None,
    ) -> httpx.Response:
        if key is not None and not is_key(key):
            raise InvalidRequest("the key must be 1 to 255 visible ASCII characters")
        key = key or uuid.uuid4().hex
        headers["idempotency-key"] = key
        held = body if body is None or isinstance(body, bytes | Source) else Stream(body)
        retry, outcome = Retry(self._patience_s), OutcomeTracker(key)
        while True:
            pieces = Pieces(held, on_bytes) if held else None
            with self._encoded():
                request = self._http.build_request(
                    method,
                    url,
                    # Encoded, because httpx accepts only ASCII texts.
                    headers=[(name.encode(), value.encode()) for name, value in headers.items()],
                    content=pieces or (b"" if held == b"" else None),
                )
            try:
                # No answer is due while a long body is sent.
                short = pieces is None or isinstance(held, bytes)
                return await self._answer(request, retry, attempts=1, watched=short)
            except SynodError as error:
                if pieces is not None:
                    pieces.take_back()
                outcome.failed(error, whole=pieces is None or pieces.complete)
                repeatable = not isinstance(held, Stream) or held.whole
                again = error.again and self.reached and repeatable
                if not (again and await retry.paused(error)):
                    raise outcome.told(error, repeatable=repeatable) from None

    @contextlib.contextmanager
    def _encoded(self) -> Iterator[None]:
        try:
            yield
        except (UnicodeError, ValueError, TypeError) as error:
            raise InvalidRequest(f"nothing was sent: a header can't be encoded: {error}") from None

    async def _post(self, url: str, item: Mapping[str, Any], key: str | None) -> httpx.Response:
        body = json.dumps(item).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        return await self._write("POST", url, headers, key, body)

    async def _answer(
        self,
        request: httpx.Request,
        retry: Retry,
        *,
        stream: bool = False,
        attempts: int | None = None,
        read: str = "",
        watched: bool = True,
    ) -> httpx.Response:
        """Send `request` until it succeeds; `read` names what it reads. Raises `SynodError`."""
        if read:
            request.extensions["timeout"]["read"] = min(
                request.extensions["timeout"]["read"], self._read_patience_s
            )
        while True:
            with self._waiting.watching(self.url, retry, watched=watched):
                try:
                    response = await self._http.send(request, stream=stream)
                    if response.is_success:
                        self.reached = True
                        return response
                    error = await self._refusal(response)
                    self.reached = self.reached or bool(error.problem)
                except httpx.HTTPError as failure:
                    error = self._address.error_of(failure)
                except (httpx.InvalidURL, httpx.CookieConflict) as failure:
                    raise Misconfigured(f"{self.url} can't be asked: {failure}") from None
            if attempts == 1:
                raise error
            if not (error.again and self.reached and await retry.paused(error)):
                raise after_read(error, read, retry) from None

    async def _refusal(self, response: httpx.Response) -> SynodError:
        """The error for a response that is no success."""
        body = await response.aread()
        await response.aclose()
        if response.is_redirect:
            target = response.headers.get("location", "another place")
            return Misconfigured(
                f"{self.url} redirects to {target[:200]!a}, which is not followed: give the "
                "address of the gateway itself (--url or SYNOD_URL)"
            )
        media_type = response.headers.get("content-type", "")
        head = response.request.method == "HEAD"
        return refusal(response.status_code, media_type, None if head else body)


class Client:
    """The same client for programs without an event loop. It belongs to one thread."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        patience_s: float = PATIENCE_S,
        timeout_s: float | None = None,
        ca_cert: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
    ) -> None:
        self._client = AsyncClient(
            url,
            token=token,
            patience_s=patience_s,
            timeout_s=timeout_s,
            ca_cert=ca_cert,
            client_cert=client_cert,
            client_key=client_key,
        )
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._run(self._client.close())
        self._runner.close()

    def put(self, path: str, body: Body, **options: Any) -> Written:
        """See `AsyncClient.put`."""
        return self._run(self._client.put(path, body, **options))

    def read(self, path: str, *, stale: bool = False, at_least: int = 0) -> bytes:
        """See `AsyncClient.read`."""
        return self._run(self._client.read(path, stale=stale, at_least=at_least))

    def download(self, path: str, sink: Callable[[bytes], Any]) -> Entry:
        """See `AsyncClient.download`."""
        return self._run(self._client.download(path, sink))

    def delete(self, path: str, *, if_match: Tags = None, key: str | None = None) -> Written:
        """See `AsyncClient.delete`."""
        return self._run(self._client.delete(path, if_match=if_match, key=key))

    def move(self, source: str, target: str, **options: Any) -> Written:
        """See `AsyncClient.move`."""
        return self._run(self._client.move(source, target, **options))

    def copy(self, source: str, target: str, **options: Any) -> Written:
        """See `AsyncClient.copy`."""
        return self._run(self._client.copy(source, target, **options))

    def transaction(self, steps: Iterable[Mapping[str, Any]], *, key: str | None = None) -> Written:
        """See `AsyncClient.transaction`."""
        return self._run(self._client.transaction(steps, key=key))

    def stat(self, path: str) -> Entry:
        """See `AsyncClient.stat`."""
        return self._run(self._client.stat(path))

    def list(self, path: str) -> list[Entry]:
        """See `AsyncClient.list`."""

        async def collect() -> list[Entry]:
            return [entry async for entry in self._client.list(path)]

        return self._run(collect())

    def make_directory(self, path: str, *, key: str | None = None) -> Written:
        """See `AsyncClient.make_directory`."""
        return self._run(self._client.make_directory(path, key=key))

    def remove_directory(
        self, path: str, *, recursive: bool = False, key: str | None = None
    ) -> Written:
        """See `AsyncClient.remove_directory`."""
        return self._run(self._client.remove_directory(path, recursive=recursive, key=key))

    def cluster(self) -> dict[str, Any]:
        """See `AsyncClient.cluster`."""
        return self._run(self._client.cluster())

    def members(self) -> dict[str, Any]:
        """See `AsyncClient.members`."""
        return self._run(self._client.members())

    def change_member(self, action: Action, name: str) -> int:
        """See `AsyncClient.change_member`."""
        return self._run(self._client.change_member(action, name))

    def result(self, request: str) -> dict[str, Any]:
        """See `AsyncClient.result`."""
        return self._run(self._client.result(request))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(work)


def _file_url(path: str) -> str:
    return f"/v1/files/{path_to_url(checked_path(path))}"


def _directory_url(path: str) -> str:
    return f"/v1/directories/{path_to_url(checked_path(path))}"


def _consistency(stale: bool, at_least: int) -> dict[str, str]:
    params = {"consistency": "stale"} if stale else {}
    if at_least:
        params["at_least"] = str(at_least)
    return params
