"""Clients go on at another gateway when theirs takes no connections, and never repeat a request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from chaos.cluster.rabbitmq import free_ports
from chaos.load.http1 import Connection, Disconnected


class Gateway:
    """A server that counts requests, and answers with its name or ends the connection instead."""

    def __init__(self, name: str) -> None:
        [self._port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.name = name
        self.requests = 0
        self.dies = False

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:

            def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                group.create_task(self._serve(reader, writer))

            server = await asyncio.start_server(serve, "127.0.0.1", self._port)
            try:
                yield
            finally:
                server.close()
                await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                if self.dies:
                    break
                body = self.name.encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()
        await writer.wait_closed()


async def ask(connection: Connection) -> str:
    return (await connection.request("GET", "/")).body.decode()


async def test_a_client_goes_on_at_the_next_gateway_and_stays_there() -> None:
    """Given a gateway that dies with a request, then whether the request happened is unknown; the
    next one goes to the other gateway, also when the first one is back.
    """
    first, second = Gateway("first"), Gateway("second")
    connection = Connection.to(first.url, second.url)
    async with second.serving():
        async with first.serving():
            assert await ask(connection) == "first"
            first.dies = True
            with pytest.raises(Disconnected):
                await ask(connection)

        assert await ask(connection) == "second"
        first.dies = False
        async with first.serving():
            assert await ask(connection) == "second"
            connection.close()

    assert (first.requests, second.requests) == (2, 2)


async def test_without_any_gateway_a_request_certainly_did_not_happen() -> None:
    """Given that no gateway listens, then the error names each, and is no `Disconnected`."""
    first, second = Gateway("first"), Gateway("second")
    connection = Connection.to(first.url, second.url, first.url)

    with pytest.raises(ConnectionError) as refused:
        await ask(connection)

    assert not isinstance(refused.value, Disconnected)
    assert f"{refused.value}".count("Connect call failed") == 2
    async with first.serving():
        assert await ask(connection) == "first"
        connection.close()
