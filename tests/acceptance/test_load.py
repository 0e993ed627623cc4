"""`Load.verify` can fail: it finds a server that loses, repeats or alters a write."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from chaos.load.http1 import Connection, Disconnected
from chaos.load.writers import Load

FAULTY_WRITE = 12


@dataclass
class FaultyGateway:
    """A gateway that is correct but for one write, which has the fault `fault`."""

    fault: str
    url: str = ""
    writes: int = 0
    files: dict[str, tuple[int, str, bytes]] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    serving: set[asyncio.Task[None] | None] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
                body = await reader.readexactly(length)
                status, headers, answer = self.answer(method, target, body)
                if status == 0:
                    break
                lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                writer.write(f"HTTP/1.1 {status} X\r\n{lines}".encode())
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(answer), answer))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if target.startswith("/v1/requests/"):
            etag = self.outcomes.get(target.rpartition("/")[2])
            result = {"state": "decided", "result": "done" if etag else "aborted", "etag": etag}
            return 200, {}, json.dumps(result).encode()
        version, etag, content = self.files.get(target, (0, "", b""))
        if method == "GET":
            headers = {"synod-version": str(version), "etag": f'"{etag}"'}
            return (200, headers, content) if version else (404, {}, b"")
        self.writes += 1
        strikes = self.fault if self.writes == FAULTY_WRITE else ""
        if self.writes > FAULTY_WRITE and self.fault == "altered":
            return 503, {}, b"{}"
        etag = f"{self.writes}-0"
        if strikes != "lost":
            kept = body.swapcase() if strikes == "altered" else body
            self.files[target] = (version + 1 + (strikes == "twice"), etag, kept)
        request = f"session-{self.writes}"
        if strikes == "unknown":
            self.outcomes[request] = etag
            return 504, {"synod-request-id": request}, b'{"type": "urn:synod:problem:unknown"}'
        if strikes == "cut":
            return 0, {}, b""
        return 200, {"synod-request-id": request, "etag": f'"{etag}"'}, b"{}"


@contextlib.asynccontextmanager
async def faulty_gateway(fault: str) -> AsyncIterator[FaultyGateway]:
    found = FaultyGateway(fault)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield found
    await asyncio.gather(*(task for task in found.serving if task is not None))


async def verdict(fault: str) -> tuple[Load, list[str]]:
    async with faulty_gateway(fault) as gateway:
        async with Load(gateway.url, clients=2, paths=2, size_bytes=100) as load:
            await load.count(2 * FAULTY_WRITE if fault != "altered" else FAULTY_WRITE)
        await load.resolve()
        return load, await load.verify()


async def test_a_correct_server_passes() -> None:
    load, faults = await verdict("")
    assert faults == []
    assert load.summary()["acknowledged"] >= 2 * FAULTY_WRITE


@pytest.mark.parametrize(
    ("fault", "says"),
    [("lost", "is at version"), ("twice", "is at version"), ("altered", "not written last")],
)
async def test_a_faulty_write_is_found(fault: str, says: str) -> None:
    _, faults = await verdict(fault)
    assert len(faults) == 1
    assert says in faults[0]


async def test_an_unknown_write_is_resolved_and_counted() -> None:
    load, faults = await verdict("unknown")
    assert faults == []
    assert [one.fate for one in load.attempts if one.status == 504] == ["acknowledged"]


async def test_a_write_without_an_answer_stays_unknown_and_may_count() -> None:
    load, faults = await verdict("cut")
    assert faults == []
    assert [one.fate for one in load.attempts if one.status == 0] == ["unknown"]


async def test_a_cut_connection_is_distinguished_from_one_that_was_never_made() -> None:
    async with faulty_gateway("cut") as gateway:
        gateway.writes = FAULTY_WRITE - 1
        connection = Connection.to(gateway.url)
        with pytest.raises(Disconnected):
            await connection.request("PUT", "/v1/files/x", b"x")
        assert (await connection.request("PUT", "/v1/files/x", b"x")).status == 200
        connection.close()
    with pytest.raises(ConnectionError) as refused:
        await connection.request("GET", "/v1/files/x")
    assert not isinstance(refused.value, Disconnected)
