"""The health that a node's process reports of itself."""

from pathlib import Path

from gateway.hosting import broker_outage
from gateway.node_observers import NodeObservers
from gateway.settings import Settings
from tests.broker.hosting import memory_house


async def test_a_broker_that_takes_no_messages_is_what_is_wrong_with_a_node(tmp_path: Path) -> None:
    # Given a healthy node
    house, broker = memory_house(tmp_path)
    host = house.host("store-1")
    observers = NodeObservers(Settings(data=tmp_path), collects=False)
    observers.observer(host.name, host.transport)
    observers.watch(host)
    async with house.running(host):
        assert (observers.unhealthy_reason(), broker_outage(host.transport)) == ("", "")

        # When the broker takes no messages, then that is the reason, and not the missing turns
        broker.block()
        reason = "the broker takes no messages at present (its memory or disk alarm)"
        assert observers.unhealthy_reason(lambda: 1e9) == f"store-1: {reason}"
        assert broker_outage(host.transport) == reason

        # Until it takes them again.
        broker.unblock()
        assert (observers.unhealthy_reason(), broker_outage(host.transport)) == ("", "")
