"""Seals by a key of the cluster: what nobody without it can make or change, the broker included."""

from pathlib import Path
from uuid import uuid4

import pytest

from actors.effects import Group, TimerKey
from actors.messages import ChunkData
from broker.amqp_frames import Properties
from broker.codec import TIMER
from broker.rabbitmq import RabbitOptions, RabbitTransport
from broker.seals import SEAL, BadKey, NotSealed, Seals, read_key
from broker.topology import QueueKind, Topology
from tests.broker.actors import Puppet
from tests.broker.hosting import House, puppet, until
from tests.broker.samples import HASH
from tests.broker.test_queue_kinds import KINDS
from tests.broker.test_rabbitmq import answered, survey

SEALS = Seals(b"k" * 32)
PROPERTIES = Properties("t", "store-1", "id", 7, {"wire": 1, "manifest": True}, "json", "c")


def passes(exchange: str, key: str, properties: Properties, body: bytes) -> bool:
    try:
        SEALS.require(exchange, key, properties, body)
    except NotSealed:
        return False
    return True


def test_whatever_is_changed_breaks_the_seal() -> None:
    sealed = SEALS.sealed("e", "k", PROPERTIES, b"body")
    assert passes("e", "k", sealed, b"body")
    # RabbitMQ adds headers of its own, and neither delivery mode nor user are sealed.
    added = sealed._replace(headers={**sealed.headers, "x-first-death-queue": "q"}, user_id="u")
    assert passes("e", "k", added, b"body")
    headers = sealed.headers
    changed = [
        ("f", "k", sealed, b"body"),
        ("e", "l", sealed, b"body"),
        ("ek", "", sealed, b"body"),
        ("e", "k", sealed, b"bodz"),
        ("e", "k", sealed, b""),
        ("e", "k", PROPERTIES, b"body"),
        ("e", "k", Seals(b"l" * 32).sealed("e", "k", PROPERTIES, b"body"), b"body"),
        ("e", "k", sealed._replace(type="u"), b"body"),
        ("e", "k", sealed._replace(app_id="store-2"), b"body"),
        ("e", "k", sealed._replace(message_id="i"), b"body"),
        ("e", "k", sealed._replace(timestamp_s=8), b"body"),
        ("e", "k", sealed._replace(content_type="raw"), b"body"),
        ("e", "k", sealed._replace(correlation_id=""), b"body"),
        *(
            ("e", "k", sealed._replace(headers={**headers, name: value}), b"body")
            for name, value in (
                ("wire", 2),
                ("wire", "1"),
                ("manifest", 1),
                ("more", "x"),
                (SEAL, "ü"),
                (SEAL, ""),
                (SEAL, 1),
            )
        ),
        ("e", "k", sealed._replace(headers={SEAL: headers[SEAL]}), b"body"),
    ]
    for exchange, key, properties, body in changed:
        assert not passes(exchange, key, properties, body), (exchange, key, properties, body)


def test_a_timer_keeps_its_seal_when_it_expires_and_no_other_message_does() -> None:
    for kind, kept in ((TIMER, True), ("t", False)):
        sealed = SEALS.sealed("delay", "q", PROPERTIES._replace(type=kind), b"[]")
        assert passes("nodes", "store-1", sealed, b"[]") == kept


def test_a_key_is_long_and_its_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"  " + b"k" * 32 + b"\n")
    assert read_key(file) == b"k" * 32
    file.write_bytes(b"k" * 31 + b"\n")
    with pytest.raises(BadKey, match="must hold a random key of 32"):
        read_key(file)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("kind", KINDS)
async def test_messages_pass_with_seals_and_none_without(
    tmp_path: Path, amqp_url: str, kind: QueueKind
) -> None:
    """Given two nodes with the key and one without, then those take messages and timers of each
    other's and none of its, and none is lost to the expiry of a timer.
    """
    topology = Topology(f"seal-{uuid4().hex[:8]}", kind)

    def transport(name: str) -> RabbitTransport:
        seals = None if name == "gateway-2" else SEALS
        return RabbitTransport(amqp_url, topology, name, RabbitOptions(seals=seals))

    def tell(this: Puppet) -> None:
        this.send("store-1", f"hello of {this.identity.name}")
        this.send(Group.STORES, f"group of {this.identity.name}")
        this.send("store-1", ChunkData(sha256=HASH, data=b"x" * 300_000))
        this.set_timer("t", 50)

    house = House(tmp_path, transport)
    one, other = (house.host(f"gateway-{n}", {"call.survey": answered(tell)}) for n in (1, 2))
    two = house.host("store-1")
    async with house.running(one, two, other):
        await other.call(survey)
        await until(lambda: two.transport.health.refused == 3, within_s=20)
        await one.call(survey)
        wanted = ["chunk.data", "group of gateway-1", "hello of gateway-1"]
        await until(lambda: sorted(puppet(two).seen) == wanted, within_s=20)
        expired = [TimerKey("t")]
        await until(lambda: puppet(one).timer_expired == expired, within_s=20)
        await until(lambda: puppet(other).timer_expired == expired, within_s=20)
        assert (one.transport.health.refused, two.transport.health.refused) == (0, 3)
