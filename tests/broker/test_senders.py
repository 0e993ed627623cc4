"""What a receiver requires of a message, and what the permissions on the broker let a node do."""

import re

import pytest

from broker.amqp_frames import AmqpMessage, Properties, decode_header, encode_publish
from broker.codec import PING, TIMER
from broker.definitions import definitions_of, permissions_of, topic_permissions_of
from broker.senders import NotItsSender, SenderCheck, exchanges_written_by
from broker.topology import CONTROL_TRACE, TRACE_TOPICS, Topology, trace_topic

TOPOLOGY = Topology("c", users="own")
SUFFIX = "0123456789ab"
EXPIRED = {"x-first-death-queue": "q", "x-first-death-reason": "expired"}


def refused(
    exchange: str,
    key: str,
    sender: str,
    user: str,
    kind: str = "paxos.accept",
    headers: dict[str, str] | None = None,
) -> str:
    """Why the store-1 refuses a message; empty if it takes it."""
    properties = Properties(kind, sender, "", 0, headers or {}, user_id=user)
    message = AmqpMessage(1, 1, f"synod.c.{exchange}", key, properties, b"", 0)
    try:
        SenderCheck(TOPOLOGY, "store-1").require(message, properties)
    except NotItsSender as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("exchange", "key", "sender"),
    [
        ("to.store", "store-1", "learner-1"),
        ("to.store", "store-1.bulk", "gateway-1"),
        ("stores", "", "learner-1"),
        ("heartbeats", "", "proposer-1"),
        ("heartbeats", "", "store-1"),
        ("events", CONTROL_TRACE, "gateway-1"),
    ],
)
def test_a_message_of_its_sender_to_this_node_is_taken(
    exchange: str, key: str, sender: str
) -> None:
    assert refused(exchange, key, sender, f"synod.c.{sender}") == ""
    for user in ("", sender, "synod.c.store-2", "synod.d.learner-1", f"synod.c.{sender}0"):
        assert "the broker's user is" in refused(exchange, key, sender, user)
    assert "the broker's user is" in refused(exchange, key, "", "synod.c.")


def test_timers_and_pings_are_the_nodes_own() -> None:
    own = "synod.c.store-1"
    for kind in (TIMER, PING):
        assert refused("inbox.store-1", "store-1", "store-1", own, kind, EXPIRED) == ""
        assert "own exchange" in refused(
            "inbox.store-1", "store-1", "store-2", "synod.c.store-2", kind
        )
        assert f"sends a {kind}" in refused(
            "to.store", "store-1", "store-2", "synod.c.store-2", kind
        )


@pytest.mark.parametrize(
    ("exchange", "key"),
    [
        ("to.store", "store-2"),
        ("to.store", ""),
        ("to.learner", "store-1"),
        ("learners", ""),
        ("stores", "store-1"),
        ("inbox.store-2", "store-1"),
        ("nodes", "store-1"),
        ("delay.500", "store-1"),
    ],
)
def test_what_was_sent_to_another_address_was_passed_on(exchange: str, key: str) -> None:
    assert "passed it on" in refused(exchange, key, "learner-1", "synod.c.learner-1")


def test_what_has_expired_elsewhere_was_passed_on() -> None:
    assert "expired in a queue of another node" in refused(
        "to.store", "store-1", "learner-1", "synod.c.learner-1", headers=EXPIRED
    )


def test_only_gateways_command_all_nodes() -> None:
    assert "commands" in refused("events", CONTROL_TRACE, "store-2", "synod.c.store-2")


def test_the_user_crosses_in_the_message_and_is_left_out_without_one() -> None:
    properties = Properties("t", "store-1", "id", 0, {"a": 1})
    for user in ("", "synod.c.store-1"):
        frames = encode_publish(1, "e", "k", properties, b"x", 131_072, user_id=user)
        at = 8 + int.from_bytes(frames[3:7], "big")
        size = int.from_bytes(frames[at + 3 : at + 7], "big")
        read, _ = decode_header(frames[at + 7 : at + 7 + size])
        assert read == properties._replace(user_id=user)


# -- permissions ----------------------------------------------------------------------------------


def may(name: str, what: str, target: str) -> bool:
    """As RabbitMQ looks: it searches, and PCRE's end of a text is Python's \\Z."""
    expression = permissions_of(TOPOLOGY, name)[what]
    return re.search(expression.replace(r"\z", r"\Z"), f"synod.c.{target}") is not None


OWN = (
    "store-1",
    "store-1.bulk",
    "store-1.replicated",
    "store-1.bulk.replicated",
    f"store-1.{SUFFIX}",
    f"store-1.bulk.{SUFFIX}",
    f"delay.store-1.{SUFFIX}.60000",
)
NOT_OWN = (
    "store-10",
    "store-2",
    "store-2.bulk",
    f"store-2.{SUFFIX}",
    f"delay.store-2.{SUFFIX}.500",
    f"delay.store-10.{SUFFIX}.500",
    "store-1.x",
    "store-1x",
    f"store-1.{SUFFIX}0",
    f"store-1.{SUFFIX}.replicated",
    "xstore-1",
    "quarantine",
    "quarantine.replicated",
    "delay.500",
    "delays",
    "nodes",
)


def test_a_node_configures_writes_and_reads_its_own_queues() -> None:
    for what in ("configure", "write", "read"):
        assert all(may("store-1", what, target) for target in OWN), what
        assert not any(may("store-1", what, target) for target in NOT_OWN), what
        assert not may("store-1", what, "x.synod.c.store-1")
    assert not may("proposer-1", "configure", "proposer-1.bulk")


def test_a_node_reads_its_inbox_and_writes_to_whom_it_speaks() -> None:
    shared = ("to.acceptor", "acceptors", "phase2", "events", "quarantined", "inbox.store-2")
    assert not any(may("store-1", "configure", target) for target in (*shared, "inbox.store-1"))
    assert [t for t in (*shared, "inbox.store-1") if may("store-1", "read", t)] == ["inbox.store-1"]
    assert [t for t in shared if may("store-1", "write", t)] == [
        "to.acceptor",
        "acceptors",
        "events",
        "quarantined",
    ]
    assert [t for t in shared if may("gateway-1", "read", t)] == ["events"]
    for name in ("store-1", "gateway-1", "acceptor-1"):
        written = {
            exchange.removeprefix("synod.c.") for exchange in exchanges_written_by(TOPOLOGY, name)
        }
        assert all(may(name, "write", exchange) for exchange in written)


def test_topics_are_the_nodes_own_and_gateways_listen() -> None:
    def topics(name: str, what: str, *tried: str) -> list[str]:
        expression = topic_permissions_of(name)[what].replace(r"\z", r"\Z")
        return [topic for topic in tried if re.search(expression, topic)]

    tried = (trace_topic("store-1"), trace_topic("store-10"), CONTROL_TRACE, "control.x", "", "#")
    assert topics("store-1", "write", *tried) == [trace_topic("store-1")]
    assert topics("gateway-1", "write", *tried) == [CONTROL_TRACE]
    assert topics("store-1", "read", TRACE_TOPICS, "#", "control.#") == []
    assert topics("gateway-1", "read", TRACE_TOPICS, "#", "control.#") == [TRACE_TOPICS]


def test_services_publish_nothing_and_nodes_have_no_tag() -> None:
    for name in ("operator", "monitoring"):
        for what in ("configure", "write"):
            assert permissions_of(TOPOLOGY, name)[what] == "^$"
    assert [t for t in ("quarantine", "store-1") if may("operator", "read", t)] == ["quarantine"]
    made = definitions_of(TOPOLOGY, {"store-1": "p", "operator": "p", "monitoring": "p"})
    assert {user["name"].removeprefix("synod.c."): user["tags"] for user in made["users"]} == {
        "store-1": "",
        "operator": "monitoring",
        "monitoring": "monitoring",
    }
    sources = {binding["source"] for binding in made["bindings"]}
    exchanges = {exchange["name"] for exchange in made["exchanges"]}
    assert sources <= exchanges
    with pytest.raises(ValueError, match="shared user"):
        definitions_of(Topology("c"), {})
