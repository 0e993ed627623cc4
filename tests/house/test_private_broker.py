"""The private RabbitMQ is durable: killed and started again, it has lost nothing."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aio_pika
import pytest

from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker, server_available
from tests.brokers import real_broker

pytestmark = pytest.mark.timeout(180)


@pytest.mark.rabbitmq
async def test_the_shared_broker_serves(amqp_url: str) -> None:
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        queue = await (await connection.channel()).declare_queue(exclusive=True)
        assert queue.name


@pytest.mark.rabbitmq
async def test_a_durable_message_survives_kill_nine(private_broker: PrivateBroker) -> None:
    # Given a durable queue with a confirmed, persistent message,
    connection = await aio_pika.connect(private_broker.url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue("kept", durable=True)
        message = aio_pika.Message(b"still here", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=queue.name)
    # A message is confirmed once it is on disk, but a queue before its name is there.
    await asyncio.to_thread(private_broker.control, "eval", "mnesia:sync_log().")

    # when the server is killed, and started again on the same folder,
    first_process = private_broker.process_id
    await asyncio.to_thread(private_broker.kill)
    second_process = private_broker.process_id
    assert second_process is None
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await aio_pika.connect(private_broker.url)
    await asyncio.to_thread(private_broker.start)
    third_process = private_broker.process_id
    assert third_process not in (None, first_process)

    # then the message is there, under the same address.
    connection = await aio_pika.connect(private_broker.url)
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("kept", durable=True, passive=True)
        kept = await queue.get(timeout=30)
        assert (kept.body, queue.declaration_result.message_count) == (b"still here", 1)
        await kept.ack()


@pytest.mark.rabbitmq
def test_a_broker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    # Given a process that started a broker,
    program = (
        "import sys, pathlib, chaos.cluster.rabbitmq as r\n"
        "broker = r.PrivateBroker(pathlib.Path(sys.argv[1])); broker.start()\n"
        "print(broker.process_id, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert _session_lives(server)

        # when that process is killed without a chance to clean up,
        os.kill(parent.pid, signal.SIGKILL)

    # then the server and its port mapper are gone as well.
    try:
        deadline = time.monotonic() + 20
        while _session_lives(server):
            assert time.monotonic() < deadline, f"process {server} outlived its starter"
            time.sleep(0.05)
    finally:
        PrivateBroker(tmp_path).kill()


@pytest.mark.rabbitmq
def test_a_broker_that_outlives_is_taken_over_by_its_folder(tmp_path: Path) -> None:
    # Given a broker that was started to go on without its starter,
    program = (
        "import sys, pathlib, chaos.cluster.rabbitmq as r\n"
        "r.PrivateBroker(pathlib.Path(sys.argv[1]), outlives=True).start()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)

    # when another process opens the same folder, then it finds it running and can stop it.
    broker = PrivateBroker(tmp_path, outlives=True)
    server = broker.process_id
    try:
        assert server is not None
        broker.wait_ready(timeout_s=10)
    finally:
        broker.stop()
    assert broker.process_id is None
    assert not _session_lives(server)


def test_without_any_broker_the_error_names_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNOD_TEST_AMQP_URL", raising=False)
    monkeypatch.setattr("tests.brokers.docker_answers", lambda: False)
    monkeypatch.setattr("chaos.cluster.rabbitmq._server_program", _no_server)
    assert not server_available()
    with pytest.raises(BrokerFailedError, match="set SYNOD_TEST_AMQP_URL"), real_broker(tmp_path):
        pass


def test_a_server_that_ends_at_once_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\necho the disk is on fire\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("chaos.cluster.rabbitmq._server_program", lambda: program)
    broker = PrivateBroker(tmp_path / "broker")
    with pytest.raises(BrokerFailedError, match="the disk is on fire"):
        broker.start()
    assert broker.process_id is None


def _no_server() -> Path:
    raise BrokerFailedError("RabbitMQ is not installed")


def _session_lives(leader: int) -> bool:
    """Whether a running process belongs to the session that `leader` founded."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[3]) == leader:
            return True
    return False
