"""TLS of the HTTP server: handshakes, client certificates, renewal, and the limits that hold."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from gateway.http.app import GatewayApp
from gateway.http.connections import ConnectionLimits
from gateway.http.tls import ServerTls, TlsFiles, TlsUnusable
from gateway.settings import Settings
from tests.certificates import Authority, Pair
from tests.gateway.conftest import serving_app
from tests.gateway.fake import FakeCluster
from tests.gateway.raw import Answer, Client, connected
from tests.long import only_long

LOOPS = pytest.mark.parametrize(
    "loop", [pytest.param(asyncio.new_event_loop, marks=only_long), uvloop.new_event_loop]
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("localhost", "localhost", "127.0.0.1")


@asynccontextmanager
async def _serving(tls: ServerTls, limits: ConnectionLimits | None = None) -> AsyncIterator[int]:
    app = GatewayApp(FakeCluster(), Settings(body_timeout_ms=2_000))
    async with serving_app(app, limits, tls) as port:
        yield port


def _context(ca: Path, client: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    return context


@asynccontextmanager
async def _speaking(port: int, context: ssl.SSLContext) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def _ask(port: int, context: ssl.SSLContext) -> Answer:
    async with _speaking(port, context) as client:
        return await client.ask("GET", "/healthz")


def _run(loop: object, test: object) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        runner.run(test)  # type: ignore[arg-type]


@LOOPS
def test_requests_of_any_size_pass_and_the_connection_is_kept(
    loop: object, authority: Authority, pair: Pair
) -> None:
    async def test() -> None:
        async with (
            _serving(ServerTls(TlsFiles(pair.cert, pair.key))) as port,
            _speaking(port, _context(authority.cert)) as client,
        ):
            assert (await client.ask("GET", "/healthz")).status == 200
            body = b"x" * 200_000
            put = await client.ask("PUT", "/v1/files/a", f"content-length: {len(body)}", body=body)
            assert put.status in (200, 201), put

    _run(loop, test())


@LOOPS
def test_what_is_refused_midway_gets_its_answer_and_the_connection_ends(
    loop: object, authority: Authority, pair: Pair
) -> None:
    async def test() -> None:
        tls = ServerTls(TlsFiles(pair.cert, pair.key))
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: failures.append(about))
        async with (
            _serving(tls, ConnectionLimits(linger_s=0.2)) as port,
            _speaking(port, _context(authority.cert)) as client,
        ):
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
            assert (await client.answer()).problem == "invalid-request"
            assert await client.rest() == b""
        assert failures == []

    _run(loop, test())


@LOOPS
def test_plain_http_is_told_to_speak_tls(loop: object, pair: Pair) -> None:
    async def test() -> None:
        async with (
            _serving(ServerTls(TlsFiles(pair.cert, pair.key))) as port,
            connected(port) as client,
        ):
            answer = await client.ask("GET", "/v1/files/a")
            assert answer.problem == "invalid-request"
            assert b"https://" in answer.body
            assert await client.rest() == b""

    _run(loop, test())


@LOOPS
def test_a_client_certificate_is_required_where_a_client_ca_is_set(
    loop: object, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    async def test() -> None:
        strangers = Authority(tmp_path, "another CA").issue("stranger")
        tls = ServerTls(TlsFiles(pair.cert, pair.key, client_ca=authority.cert))
        async with _serving(tls) as port:
            known = authority.issue("client")
            assert (await _ask(port, _context(authority.cert, known))).status == 200
            for client in (None, strangers):
                with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                    assert (await _ask(port, _context(authority.cert, client))).status

    _run(loop, test())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_no_version_before_1_2_is_spoken(
    authority: Authority, pair: Pair, version: ssl.TLSVersion
) -> None:
    context = _context(authority.cert)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with _serving(ServerTls(TlsFiles(pair.cert, pair.key))) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await _ask(port, context)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await _ask(port, context)).status == 200


@LOOPS
def test_a_renewed_certificate_serves_new_connections_and_ends_no_old_one(
    loop: object, tmp_path: Path
) -> None:
    first, second = Authority(tmp_path / "1"), Authority(tmp_path / "2")
    live = first.issue("localhost", file="live")
    new = second.issue("localhost")

    async def test() -> None:
        tls = ServerTls(TlsFiles(live.cert, live.key))
        async with _serving(tls) as port, _speaking(port, _context(first.cert)) as old:
            assert (await old.ask("GET", "/healthz")).status == 200
            shutil.copy(new.cert, live.cert)
            shutil.copy(new.key, live.key)
            tls.reload()
            assert (await old.ask("GET", "/healthz")).status == 200
            assert (await _ask(port, _context(second.cert))).status == 200
            with pytest.raises(ssl.SSLCertVerificationError):
                await _ask(port, _context(first.cert))

    _run(loop, test())


async def test_a_removed_client_ca_lets_nobody_in_any_more(tmp_path: Path, pair: Pair) -> None:
    """Also not by a session that began with it."""
    first, second = Authority(tmp_path / "1"), Authority(tmp_path / "2")
    client = first.issue("client")
    trusted = tmp_path / "clients.pem"
    shutil.copy(first.cert, trusted)
    tls = ServerTls(TlsFiles(pair.cert, pair.key, client_ca=trusted))
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(client.cert, client.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def ask(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        with (
            socket.create_connection(("127.0.0.1", port)) as raw,
            context.wrap_socket(raw, session=session) as connection,
        ):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            return connection.session, connection.session_reused

    async with _serving(tls) as port:
        session, _ = await asyncio.to_thread(ask, None)
        assert (await asyncio.to_thread(ask, session))[1], "the session can be resumed"
        shutil.copy(second.cert, trusted)
        tls.reload()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(ask, session)


def test_what_is_broken_keeps_the_former_certificate_and_is_named(
    authority: Authority, tmp_path: Path
) -> None:
    for name in ("live", "other"):
        authority.issue("localhost", file=name)
    folder = authority.cert.parent
    live = Pair(tmp_path / "live.pem", tmp_path / "live.key")

    def put(cert: Path | None, key: Path | None) -> None:
        for source, target in ((cert, live.cert), (key, live.key)):
            target.unlink(missing_ok=True)
            if source is not None:
                shutil.copy(source, target)

    put(folder / "live.pem", folder / "live.key")
    tls = ServerTls(TlsFiles(live.cert, live.key))
    context = tls.context
    expired = authority.issue("localhost", file="expired", days=(-2, -1))
    future = authority.issue("localhost", file="future", days=(1, 2))
    locked = authority.issue("localhost", file="locked", passphrase=b"secret")
    (tmp_path / "text").write_text("no certificate")
    for cert, key, reason in (
        (None, folder / "live.key", "tls_cert: .* can't be read: No such file"),
        (folder / "live.pem", None, "tls_key: .* can't be read: No such file"),
        (tmp_path / "text", folder / "live.key", "are not a certificate and its private key"),
        (folder / "live.pem", tmp_path / "text", "are not a certificate and its private key"),
        (folder / "live.pem", folder / "other.key", "is not the private key of the certificate"),
        (expired.cert, expired.key, "has expired; renew it, and send SIGHUP"),
        (future.cert, future.key, "is not valid yet"),
        (locked.cert, locked.key, "is encrypted"),
    ):
        put(cert, key)
        with pytest.raises(TlsUnusable, match=reason):
            tls.reload()
        assert tls.context is context
    put(folder / "other.pem", folder / "other.key")
    tls.reload()
    assert tls.context is not context


@LOOPS
def test_connections_without_a_handshake_have_a_deadline_and_go_first(
    loop: object, authority: Authority, pair: Pair
) -> None:
    """They can't keep those out that do speak TLS."""

    async def test() -> None:
        limits = ConnectionLimits(connections=4, from_one_address=4, head_s=5.0)
        tls = ServerTls(TlsFiles(pair.cert, pair.key))
        async with _serving(tls, limits) as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            half = await asyncio.open_connection("127.0.0.1", port)
            half[1].write(b"\x16\x03\x01")
            assert (await _ask(port, _context(authority.cert))).status == 200
            # The oldest gave their places.
            async with asyncio.timeout(2):
                assert await silent[0][0].read() == b""
            for _, writer in [*silent, half]:
                writer.transport.abort()
        async with _serving(tls, ConnectionLimits(head_s=0.2)) as port:
            for start in (b"", b"\x16\x03\x01"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(start)
                async with asyncio.timeout(2):
                    assert await reader.read() == b""
                writer.transport.abort()

    _run(loop, test())
