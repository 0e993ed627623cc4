"""Stores that are used by HTTP: Synod, etcd through its JSON gateway, and a bare Starlette."""

import base64
import json
from abc import ABC, abstractmethod
from typing import NamedTuple

from chaos.bench.recording import DONE, OperationEnd
from chaos.load.http1 import Connection, Reply

_BYTES_PER_S_MIN = 500_000
"""A request with a body waits for this much longer than one without."""

_TIMEOUT_S = 30.0


class HttpRequest(NamedTuple):
    """One request; `headers` are whole lines."""

    method: str
    target: str
    body: bytes = b""
    headers: str = ""


class HttpSession(ABC):
    """A `StoreSession` that is one connection. Subclasses say what is sent."""

    def __init__(self, url: str, size_bytes: int) -> None:
        self._connection = Connection.to(url)
        self._size_bytes = size_bytes
        self._timeout_s = _TIMEOUT_S + size_bytes / _BYTES_PER_S_MIN

    def close(self) -> None:
        """See `StoreSession`."""
        self._connection.close()

    async def read(self, key: str) -> OperationEnd:
        """See `StoreSession`."""
        return await self._ask(self._read(key), is_read=True)

    async def write(self, key: str, content: bytes) -> OperationEnd:
        """See `StoreSession`."""
        return await self._ask(self._write(key, content), is_read=False)

    async def _ask(self, request: HttpRequest, *, is_read: bool) -> OperationEnd:
        method, target, body, headers = request
        try:
            reply = await self._connection.request(
                method, target, body, headers, timeout_s=self._timeout_s
            )
        except ConnectionError as error:
            return OperationEnd("failed", f"{error}")
        if reply.status in (200, 201, 204):
            if is_read and not self._holds_value(reply):
                return OperationEnd("failed", "the answer does not hold the value")
            return DONE
        problem = f"{reply.status} {_problem_of(reply)}".strip()
        if reply.status == 503:
            return OperationEnd("refused", problem, bool(reply.header("retry-after")))
        return OperationEnd("failed", problem)

    @abstractmethod
    def _read(self, key: str) -> HttpRequest:
        """The request that reads a value."""

    @abstractmethod
    def _write(self, key: str, content: bytes) -> HttpRequest:
        """The request that writes a value."""

    def _holds_value(self, reply: Reply) -> bool:
        return len(reply.body) == self._size_bytes


class SynodSession(HttpSession):
    """A client of a gateway, below a folder."""

    def __init__(self, url: str, size_bytes: int, folder: str, token: str = "") -> None:
        super().__init__(url, size_bytes)
        self._folder = folder
        self._headers = f"authorization: Bearer {token}\r\n" if token else ""

    def _read(self, key: str) -> HttpRequest:
        return HttpRequest("GET", f"/v1/files/{self._folder}/{key}", b"", self._headers)

    def _write(self, key: str, content: bytes) -> HttpRequest:
        return HttpRequest("PUT", f"/v1/files/{self._folder}/{key}", content, self._headers)


class EtcdSession(HttpSession):
    """A client of etcd's gateway for JSON."""

    def _read(self, key: str) -> HttpRequest:
        return HttpRequest("POST", "/v3/kv/range", b'{"key":"%b"}' % _text(key.encode()))

    def _write(self, key: str, content: bytes) -> HttpRequest:
        body = b'{"key":"%b","value":"%b"}' % (_text(key.encode()), _text(content))
        return HttpRequest("POST", "/v3/kv/put", body)

    def _holds_value(self, reply: Reply) -> bool:
        return len(reply.body) > self._size_bytes * 4 // 3


class BareSession(HttpSession):
    """A client of `chaos.bench.bare_starlette`."""

    def _read(self, key: str) -> HttpRequest:
        return HttpRequest("GET", f"/{self._size_bytes}/{key}")

    def _write(self, key: str, content: bytes) -> HttpRequest:
        return HttpRequest("PUT", f"/{self._size_bytes}/{key}", content)


def _text(data: bytes) -> bytes:
    return base64.b64encode(data)


def _problem_of(reply: Reply) -> str:
    """The stable type of a problem of Synod, or nothing."""
    try:
        problem = json.loads(reply.body)
    except ValueError:
        return ""
    return str(problem.get("type", "")).rpartition(":")[2] if isinstance(problem, dict) else ""
