"""The firehose on a real RabbitMQ with its console: on while it is watched, and off again."""

import asyncio
import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from actors.effects import Group
from actors.messages import LeaderBeat
from broker.firehose import FirehoseRefused, TracedMessage, management_url_of, watch_firehose
from broker.rabbitmq import RabbitTransport
from broker.tls import BrokerTls
from broker.topology import Topology
from broker.transport import Parcel
from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker
from gateway.cli.firehose import line_of
from tests.broker.samples import BALLOT, SAMPLES

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A broker with its console."""
    private = PrivateBroker(tmp_path_factory.mktemp("console"), management=True)
    try:
        private.start()
        yield private
    except BrokerFailedError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        private.stop()


def tracing_is_on(broker: PrivateBroker) -> bool:
    who = broker.identity
    request = urllib.request.Request(f"{broker.management_url}api/vhosts/%2F")
    word = base64.b64encode(f"{who.user}:{who.password}".encode()).decode()
    request.add_header("authorization", f"Basic {word}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bool(json.load(answer)["tracing"])


async def test_every_message_is_reported_as_a_step_and_the_firehose_is_off_again(
    broker: PrivateBroker,
) -> None:
    topology = Topology(f"fire-{uuid4().hex[:8]}")
    transport = RabbitTransport(broker.url, topology, "proposer-1")
    steps: list[TracedMessage] = []
    async with asyncio.TaskGroup() as group:
        connected = asyncio.Event()
        running = group.create_task(transport.run(lambda _: None, connected.set, lambda: None))
        await connected.wait()
        watching = group.create_task(
            watch_firehose(
                broker.url, broker.management_url, topology, 4.0, steps.append, BrokerTls()
            )
        )
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(tracing_is_on, broker):
                pass
        parcel = Parcel("c", "proposer-1", "d", 1, tuple(SAMPLES))
        transport.publish("store-1", parcel)
        beat = LeaderBeat(
            ballot=BALLOT, ready=True, chosen_through=3, lease_left_ms=9, read_leases_ms={}
        )
        transport.publish(Group.HEARTBEATS, Parcel("c", "proposer-1", "d", 1, (beat,)))
        await transport.flush()
        await watching
        running.cancel()

    assert not tracing_is_on(broker)
    told = [step for step in steps if step.to in ("store-1", "store-1.bulk")]
    assert {step.kind for step in told} == {m.type for m in SAMPLES}  # type: ignore[attr-defined]
    assert all(step.message is not None and step.sender == "proposer-1" for step in told)
    (announced,) = [step for step in steps if step.to == "@heartbeats"]
    assert announced.ballot == f"{BALLOT.round}.{BALLOT.proposer}"
    line = line_of(announced, announced.wall_s).plain
    assert "proposer-1   → @heartbeats" in line
    assert announced.message_id in line


async def test_a_console_that_is_not_there_is_named(broker: PrivateBroker) -> None:
    with pytest.raises(FirehoseRefused, match="nothing answers at http://127"):
        await watch_firehose(
            broker.url, "http://127.0.0.1:1", Topology("none"), 1, lambda step: None, BrokerTls()
        )


def test_the_command(broker: PrivateBroker, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gateway.cli.main", "firehose", "--seconds", "0.2"),
            *("--broker", broker.url, "--management", broker.management_url),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "The firehose is off again. 0 messages" in done.stderr
    assert not tracing_is_on(broker)


def test_where_a_console_usually_is() -> None:
    assert management_url_of("amqp://u:p@rabbitmq:5672/") == "http://rabbitmq:15672"
