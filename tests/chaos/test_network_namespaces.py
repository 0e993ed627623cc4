"""Networks of namespaces: sites that are cut off, a host behind a NAT, and nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.cluster import network_namespaces
from chaos.cluster.hosts import NetworkHost
from chaos.cluster.network_namespaces import (
    NatNetwork,
    NetworkUnavailableError,
    SiteCut,
    SiteNetwork,
)
from tests.chaos.networks import need_network_namespaces
from tests.long import only_long

pytestmark = only_long

PORT = 9999
PATIENCE_S = 10.0

SEND = """
import socket, sys
address, text = sys.argv[1:]
socket.socket(type=socket.SOCK_DGRAM).sendto(text.encode(), (address, int(PORT)))
""".replace("PORT", str(PORT))

LISTEN = """
import socket, sys
listener = socket.socket(type=socket.SOCK_DGRAM)
listener.bind((sys.argv[1], PORT))
print("listens", flush=True)
while True:
    print(listener.recv(100).decode(), flush=True)
""".replace("PORT", str(PORT))

TALK = """
import socket, sys
connection = socket.create_connection((sys.argv[1], PORT))
for line in sys.stdin:
    connection.sendall(line.encode())
    if line == "last\\n":
        sys.exit(repr(connection.recv(1)))
""".replace("PORT", str(PORT))


@pytest.fixture(autouse=True)
def needed() -> None:
    need_network_namespaces()


def send(sender: NetworkHost, receiver: NetworkHost, text: str) -> None:
    """Send one datagram; whether it arrives is another question."""
    command = [*sender.enter, sys.executable, "-c", SEND, receiver.address, text]
    subprocess.run(command, check=True)


@contextmanager
def heard(receiver: NetworkHost) -> Iterator[Iterator[str]]:
    """The datagrams that arrive at a host, in order."""
    command = [*receiver.enter, sys.executable, "-c", LISTEN, receiver.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stdout is not None
            lines = (line.strip() for line in listener.stdout)
            assert next(lines) == "listens"
            yield lines
        finally:
            listener.kill()


def test_a_site_is_cut_off_both_ways_or_one_way_and_healed() -> None:
    # Given two sites, and clients outside of both,
    with SiteNetwork(["site-1", "site-2"]) as network:
        one, two, here = network.sites["site-1"], network.sites["site-2"], network.here
        with heard(one) as at_one, heard(two) as at_two, heard(here) as at_clients:
            # when nothing is cut, then all reach each other;
            send(two, one, "hello one")
            send(one, two, "hello two")
            send(one, here, "hello clients")
            assert next(at_one) == "hello one"
            assert next(at_two) == "hello two"
            assert next(at_clients) == "hello clients"

            assert network.packets_lost() == 0

            # when the first one is cut off from the other, then only clients reach it;
            network.cut(SiteCut("site-1"))
            send(two, one, "lost")
            send(one, two, "lost")
            send(here, one, "from the clients")
            assert next(at_one) == "from the clients"
            send(one, here, "to the clients")
            assert next(at_clients) == "to the clients"
            assert network.packets_lost() == 2

            # when it is cut off from the clients as well, then nothing goes in or out;
            network.cut(SiteCut("site-1", from_clients=True))
            send(here, one, "lost")
            send(one, here, "lost")
            send(two, here, "from the other site")
            assert next(at_clients) == "from the other site"
            network.heal()

            # when what comes from it is lost, then what goes to it arrives;
            network.cut(SiteCut("site-1", "from"))
            send(one, two, "lost")
            send(two, one, "one way")
            assert next(at_one) == "one way"
            network.heal()

            # when what goes to it is lost, then what comes from it arrives;
            network.cut(SiteCut("site-1", "to"))
            send(two, one, "lost")
            send(one, two, "the other way")
            assert next(at_two) == "the other way"
            network.heal()

            # and when all is healed, all reach each other again.
            send(two, one, "healed")
            send(one, two, "healed")
            assert next(at_one) == "healed"
            assert next(at_two) == "healed"


def test_only_connections_from_or_to_certain_ports_are_cut() -> None:
    # Given a site that listens at two ports,
    with SiteNetwork(["site-1"]) as network, socket.socket() as kept, socket.socket() as cut:
        address = network.here.address
        for listener in (kept, cut):
            listener.bind((address, 0))
            listener.listen()
            listener.settimeout(PATIENCE_S)
        ports = [listener.getsockname()[1] for listener in (kept, cut)]

        # when the traffic of one of them is cut,
        network.cut(SiteCut("site-1", ports=frozenset({ports[1]}), from_clients=True))

        # then a connection to the other one opens, and to this one none.
        program = (
            "import socket, sys\n"
            "socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)"
        )
        enter = network.sites["site-1"].enter
        done = [
            subprocess.run(
                [*enter, sys.executable, "-c", program, address, str(port)],
                capture_output=True,
                check=False,
            )
            for port in ports
        ]
        assert [one.returncode for one in done] == [0, 1]
        assert b"TimeoutError" in done[1].stderr


@pytest.mark.parametrize("resets", [False, True])
def test_a_nat_that_restarts_has_forgotten_the_connections_through_it(resets: bool) -> None:
    with NatNetwork() as network, socket.socket() as listener:
        # Given a connection from behind the NAT,
        listener.bind((network.outside.address, PORT))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        command = [*network.inside.enter, sys.executable, "-c", TALK, network.outside.address]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as inside:
            try:
                connection, _ = listener.accept()
                connection.settimeout(1.0)
                assert inside.stdin is not None
                assert inside.stderr is not None
                print("first", file=inside.stdin, flush=True)
                assert connection.recv(100) == b"first\n"

                # when the NAT restarts,
                network.stop()
                network.start(resets=resets)

                # then it drops what the connection sends, or answers it by a reset,
                print("last", file=inside.stdin, flush=True)
                with pytest.raises(TimeoutError):
                    connection.recv(100)
                if resets:
                    assert "ConnectionResetError" in inside.stderr.read()
                else:
                    assert inside.poll() is None

                # and new connections are as good as before.
                with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as another:
                    fresh, _ = listener.accept()
                    assert another.stdin is not None
                    print("hello", file=another.stdin, flush=True)
                    assert fresh.recv(100) == b"hello\n"
                    fresh.close()
                    another.kill()
                connection.close()
            finally:
                inside.kill()


def test_nothing_is_left_when_the_process_that_made_a_network_is_killed() -> None:
    # Given a process that made a network,
    program = (
        "import sys, chaos.cluster.network_namespaces as n\n"
        "network = n.SiteNetwork(['site-1', 'site-2'])\n"
        "print(network.here.address, network.sites['site-1'].enter[1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as maker:
        assert maker.stdout is not None
        address, namespace = maker.stdout.readline().split()
        assert address in _addresses()

        # when that process is killed without a chance to clean up,
        os.kill(maker.pid, signal.SIGKILL)

    # then its interfaces and namespaces go by themselves.
    holder = Path(namespace.removeprefix("--net="))
    deadline = time.monotonic() + PATIENCE_S
    while address in _addresses() or holder.exists():
        assert time.monotonic() < deadline, f"{address} or {holder} is left"
        time.sleep(0.05)


def test_without_root_or_the_tools_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(NetworkUnavailableError, match="needs root: run the command as root"):
            SiteNetwork(["site-1"])
    monkeypatch.setattr(network_namespaces, "_PATH", "/nowhere")
    with pytest.raises(NetworkUnavailableError, match="apt-get install iproute2 nftables"):
        NatNetwork()


def _addresses() -> str:
    return subprocess.run(
        ["ip", "-4", "address"], capture_output=True, text=True, check=True
    ).stdout
