"""TLS to a real RabbitMQ: what is trusted, what is refused, and that the reason says what to do."""

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from broker.event_subscription import subscribe_to_events
from broker.firehose import TracedMessage, watch_firehose
from broker.probe import probe, strangers
from broker.rabbitmq import RabbitOptions, RabbitTransport
from broker.tls import BrokerTls, TlsFilesUnusable, refusal_of
from broker.topology import Topology
from broker.transport import TransportRefused
from chaos.cluster.rabbitmq import BrokerCertificates, PrivateBroker
from gateway.doctor.findings import Grade
from gateway.doctor.rabbitmq import check_brokers, management_urls
from gateway.settings import Settings
from tests.certificates import Authority, Pair
from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    return authority.issue("store-1")


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, client: Pair
) -> Iterator[PrivateBroker]:
    """It asks for client certificates, and its own can be replaced in `live.pem`."""
    own = authority.issue("127.0.0.1", file="live")
    certificates = BrokerCertificates(
        authority.cert, own.cert, own.key, True, client.cert, client.key
    )
    with PrivateBroker(
        tmp_path_factory.mktemp("rabbitmq"), management=True, certificates=certificates
    ) as broker:
        yield broker


@pytest.fixture
def tls(authority: Authority, client: Pair) -> BrokerTls:
    return BrokerTls(authority.cert, client.cert, client.key)


@pytest.fixture
def topology() -> Topology:
    return Topology(f"tls-{uuid4().hex[:8]}")


async def _connect(url: str, tls: BrokerTls, topology: Topology) -> None:
    """Connect as a node does. Raises `TransportRefused`."""
    transport = RabbitTransport(url, topology, "store-1", RabbitOptions(tls=tls))
    connected = asyncio.Event()

    async def run() -> None:
        await transport.run(lambda _: None, connected.set, lambda: None)

    running = asyncio.ensure_future(run())
    async with asyncio.timeout(40):
        waiting = asyncio.ensure_future(connected.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not running.done():
        running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        assert connected.is_set()


async def test_everything_that_uses_a_broker_speaks_tls(
    broker: PrivateBroker, tls: BrokerTls, topology: Topology
) -> None:
    """A node, its events, the firehose, the probe of the doctor and its view of the console."""
    events: list[str] = []
    steps: list[TracedMessage] = []
    transport = RabbitTransport(broker.url, topology, "store-1", RabbitOptions(tls=tls))
    async with asyncio.TaskGroup() as group:
        connected = asyncio.Event()
        running = group.create_task(transport.run(lambda _: None, connected.set, lambda: None))
        listening = group.create_task(
            subscribe_to_events(
                broker.url, topology, "gateway-1", lambda topic, *_: events.append(topic), tls
            )
        )
        watching = group.create_task(
            watch_firehose(broker.url, broker.management_url, topology, 1.0, steps.append, tls)
        )
        await connected.wait()
        async with asyncio.timeout(10):
            while not events or not steps:
                transport.emit("trace.store-1", "trace", b"[]")
                await asyncio.sleep(0.05)
        await watching
        running.cancel()
        listening.cancel()
    probed = await probe(broker.url, topology, tls)
    assert probed.failed_step is None
    assert await strangers((broker.url, broker.url), topology, tls) == ()
    settings = Settings(
        broker=broker.url, broker_ca=tls.ca, broker_cert=tls.cert, broker_key=tls.key
    )
    found = await check_brokers(settings, management_urls(broker.url, broker.management_url))
    grades = {finding.check: finding.status for finding in found}
    assert grades["broker"] is Grade.OK
    (plugins,) = [each.found for each in found if each.check == "plugins"]
    assert "does not answer" not in plugins


async def test_an_unknown_ca_is_refused(
    broker: PrivateBroker, tls: BrokerTls, topology: Topology, tmp_path: Path
) -> None:
    others = Authority(tmp_path, "another CA")
    for ca in (others.cert, None):
        with pytest.raises(TransportRefused, match=r"no CA that is trusted.*broker_ca"):
            await _connect(broker.url, replace(tls, ca=ca), topology)


async def test_another_name_is_refused(
    broker: PrivateBroker, tls: BrokerTls, topology: Topology
) -> None:
    url = broker.url.replace("@127.0.0.1", "@localhost")
    with pytest.raises(TransportRefused, match=r"for another name.*localhost.*write a name"):
        await _connect(url, tls, topology)


async def test_no_client_certificate_is_refused(
    broker: PrivateBroker,
    tls: BrokerTls,
    topology: Topology,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In TLS 1.3 the refusal comes after the handshake, and a reset of the connection may swallow
    it again and again; in TLS 1.2 it is part of the handshake.
    """
    make_context = BrokerTls.context

    def older_context(this: BrokerTls) -> ssl.SSLContext:
        context = make_context(this)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    monkeypatch.setattr(BrokerTls, "context", older_context)
    stranger = Authority(tmp_path, "another CA").issue("store-1")
    for given in (
        replace(tls, cert=None, key=None),
        replace(tls, cert=stranger.cert, key=stranger.key),
    ):
        with pytest.raises(TransportRefused, match=r"client certificate.*set broker_cert"):
            await _connect(broker.url, given, topology)


async def test_a_port_without_tls_is_named(
    tls: BrokerTls, topology: Topology, amqp_url: str
) -> None:
    with pytest.raises(TransportRefused, match=r"no TLS connection .*check that `broker` names"):
        await _connect(amqp_url.replace("amqp://", "amqps://"), tls, topology)


@only_long
async def test_an_expired_certificate_is_refused(
    broker: PrivateBroker, authority: Authority, tls: BrokerTls, topology: Topology
) -> None:
    live = authority.cert.parent
    for suffix in ("pem", "key"):
        shutil.copy(live / f"live.{suffix}", live / f"kept.{suffix}")
    authority.issue("127.0.0.1", file="live", days=(-2, -1))
    try:
        broker.control("eval", "ssl:clear_pem_cache().")
        with pytest.raises(TransportRefused, match="has expired: renew it"):
            await _connect(broker.url, tls, topology)
    finally:
        for suffix in ("pem", "key"):
            shutil.copy(live / f"kept.{suffix}", live / f"live.{suffix}")
        broker.control("eval", "ssl:clear_pem_cache().")
    await _connect(broker.url, tls, topology)


def test_what_the_files_lack_is_named(authority: Authority, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate")
    own, other = authority.issue("one"), authority.issue("two")
    locked = authority.issue("locked", passphrase=b"secret")
    for tls, reason in (
        (BrokerTls(tmp_path / "none"), "broker_ca: .*none can't be read: No such file"),
        (BrokerTls(text), "broker_ca: .*text holds no certificate"),
        (BrokerTls(None, own.cert, tmp_path / "none"), "broker_key: .*none can't be read"),
        (BrokerTls(None, own.cert, other.key), "broker_cert, broker_key: .* key values mismatch"),
        (BrokerTls(None, locked.cert, locked.key), "broker_key: .* is encrypted"),
    ):
        with pytest.raises(OSError, match=reason):
            tls.context()


@only_long
def test_a_node_ends_with_the_reason_and_without_a_secret(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    """Of a wrong CA, as the process says it: the password is in the URL that failed."""
    other = Authority(tmp_path / "ca", "another CA")
    done = subprocess.run(
        [sys.executable, "-m", "synod", "node", "store-1"],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")},
            "PYTHONPATH": str(ROOT),
            "SYNOD_BROKER": broker.url,
            "SYNOD_BROKER_CA": str(other.cert),
        },
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 1
    assert "name the CA's file in broker_ca" in done.stderr
    assert broker.identity.password not in done.stdout + done.stderr


@pytest.mark.timeout(10)
def test_errors_that_came_from_each_other_are_looked_at_once() -> None:
    # Given a closed connection's error that was raised again while another of it was handled,
    closed, lost = ConnectionError("closed"), ConnectionResetError(104, "reset")
    closed.__context__, lost.__cause__ = lost, closed
    # then the node goes on to the next broker,
    assert refusal_of(closed) is None
    # and TLS is found in such a circle, too.
    lost.__cause__ = TlsFilesUnusable("bad")
    lost.__cause__.__context__ = closed
    assert refusal_of(closed) is not None
