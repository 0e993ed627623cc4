"""Networks of a run's own on this machine: network namespaces, links between them, and cuts.

    SiteNetwork                                NatNetwork

    this process ── router ─┬─ site-1          this process ── NAT ── inside
                            ├─ site-2
                            └─ site-3

A namespace is held by a process that waits on a pipe whose other end only this process holds. When
this process dies, in whatever way, the holder ends, and with the last process in it Linux removes
the namespace, its links and its rules: nothing is left behind, and there is nothing to clean up.

Addresses are from 198.18.0.0/15, which is reserved for tests of networks (RFC 2544). It needs root,
iproute2 and nftables; `NetworkUnavailableError` says what is missing.
"""

import ipaddress
import json
import os
import random
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from chaos.cluster.hosts import NetworkHost
from chaos.cluster.processes import ProcessFailed

_RESERVED = ipaddress.IPv4Network("198.18.0.0/15")
_RANGE_BITS = 24
_LINK_BITS = 30

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PROGRAMS = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux"}
"""What is run, and the Debian package that has it."""

_HOLDER_PATIENCE_S = 10.0

_CLIENTS = "clients"
"""The router's interface to this process."""

Direction = Literal["both", "from", "to"]


class NetworkUnavailableError(ProcessFailed):
    """No network of its own can be made here; the text says why and what to do."""


def network_obstacle() -> str:
    """Why no network of its own can be made here and what to do; empty if one can."""
    if os.geteuid() != 0:
        return "a network of its own needs root: run the command as root, for example by sudo"
    missing = {package for name, package in _PROGRAMS.items() if not _program(name)}
    if missing:
        packages = " ".join(sorted(missing))
        return f"a network of its own needs {packages}: apt-get install {packages}"
    tried = subprocess.run(
        [_program("unshare"), "--net", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return (
            f"no network of its own can be made here ({tried.stderr.strip()}): in a container, "
            "allow it CAP_SYS_ADMIN and CAP_NET_ADMIN"
        )
    return ""


@dataclass(frozen=True, slots=True)
class SiteCut:
    """Packets between a site and the others that the router drops without a word."""

    site: str
    direction: Direction = "both"
    """As the site sees it: only what comes `from` it, only what goes `to` it, or both."""
    ports: frozenset[int] = frozenset()
    """Only TCP from or to one of these ports; none stands for everything."""
    from_clients: bool = False
    """Whether the site is cut off from the clients outside of all sites as well."""

    @property
    def rules(self) -> list[str]:
        """The rules of nftables."""
        ends = {"from": ["iif oif"], "to": ["oif iif"], "both": ["iif oif", "oif iif"]}
        listed = ", ".join(str(port) for port in sorted(self.ports))
        matches = [f"tcp {port} {{ {listed} }} " for port in ("sport", "dport")] if listed else [""]
        spared = "" if self.from_clients else f'{{other}}name != "{_CLIENTS}" '
        return [
            f'{own}name "{self.site}" {spared.format(other=other)}{match}counter drop'
            for own, other in map(str.split, ends[self.direction])
            for match in matches
        ]


class _Namespace:
    """A network namespace: a new one, or with `of_this_process` the one that it is in itself."""

    def __init__(self, *, of_this_process: bool = False) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        self.process_id = os.getpid()
        self.enter: tuple[str, ...] = ()
        if of_this_process:
            return
        # In a group of its own, so that Ctrl-C does not end it before what runs in the namespace.
        self._holder = subprocess.Popen(
            [_program("unshare"), "--net", "--", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            process_group=0,
        )
        self.process_id = self._holder.pid
        self.enter = (_program("nsenter"), f"--net=/proc/{self.process_id}/ns/net", "--")
        self._wait_for_holder(self._holder)
        self.run("ip", "link", "set", "lo", "up")

    def _wait_for_holder(self, holder: subprocess.Popen[bytes]) -> None:
        here = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + _HOLDER_PATIENCE_S
        while os.readlink(f"/proc/{holder.pid}/ns/net") == here:
            if holder.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise NetworkUnavailableError("no network namespace can be made here (unshare)")
            time.sleep(0.01)

    def run(self, program: str, *arguments: str, given: str = "") -> str:
        """Run a program in the namespace; its output. Raises `NetworkUnavailableError`."""
        done = subprocess.run(
            [*self.enter, _program(program) or program, *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            command = " ".join((program, *arguments))
            raise NetworkUnavailableError(f"{command}: {done.stderr.strip() or done.stdout}")
        return done.stdout

    def set(self, parameter: str, value: int) -> None:
        """Set a parameter of its network, named as under /proc/sys/net."""
        self.run("sh", "-c", f"echo {value} > /proc/sys/net/{parameter}")

    def close(self) -> None:
        """End its holder; the namespace goes with the last process in it."""
        if self._holder is not None:
            self._holder.communicate()
            self._holder = None


class _Network:
    """Namespaces, and links from a range of addresses that no route of this machine covers."""

    def __init__(self) -> None:
        if obstacle := network_obstacle():
            raise NetworkUnavailableError(obstacle)
        self._opened = ExitStack()
        self._here = _Namespace(of_this_process=True)
        self._range = _free_range(self._here)
        self._subnets = self._range.subnets(new_prefix=_LINK_BITS)

    def _namespace(self) -> _Namespace:
        made = _Namespace()
        self._opened.callback(made.close)
        return made

    def _link(self, one: tuple[_Namespace, str], other: tuple[_Namespace, str]) -> tuple[str, str]:
        """Connect two namespaces by interfaces of these names; their addresses."""
        subnet = next(self._subnets)
        addresses = [str(address) for address in subnet.hosts()]
        ends: list[str] = []
        for namespace, name in (one, other):
            ends += ["name", name, "netns", str(namespace.process_id)]
        self._here.run("ip", "link", "add", *ends[:4], "type", "veth", "peer", *ends[4:])
        for (namespace, name), address in zip((one, other), addresses, strict=True):
            namespace.run("ip", "address", "add", f"{address}/{_LINK_BITS}", "dev", name)
            namespace.run("ip", "link", "set", name, "up")
        return addresses[0], addresses[1]

    def close(self) -> None:
        """Remove all; what still runs in a namespace keeps it until it ends."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SiteNetwork(_Network):
    """Sites around a router, which this process reaches as well, and which can be cut off."""

    def __init__(self, sites: Sequence[str]) -> None:
        super().__init__()
        self._cuts: set[SiteCut] = set()
        try:
            self._router = self._namespace()
            self._router.set("ipv4/ip_forward", 1)
            # Random, because other runs on this machine have links of their own.
            near, far = self._link((self._here, _drawn_name()), (self._router, _CLIENTS))
            self._here.run("ip", "route", "add", str(self._range), "via", far)
            self.here = NetworkHost(near)
            """Where processes outside of the sites listen so that the sites reach them."""
            self.sites: Mapping[str, NetworkHost] = {site: self._connected(site) for site in sites}
        except BaseException:
            self.close()
            raise

    def _connected(self, site: str) -> NetworkHost:
        namespace = self._namespace()
        near, far = self._link((self._router, site), (namespace, "uplink"))
        namespace.run("ip", "route", "add", "default", "via", near)
        return NetworkHost(far, namespace.enter)

    def cut(self, *cuts: SiteCut) -> None:
        """Drop these packets from now on. Connections stay open and hear nothing."""
        self._cuts.update(cuts)
        self._apply()

    def heal(self, *cuts: SiteCut) -> None:
        """Let these packets pass again; without arguments, all."""
        self._cuts.difference_update(cuts or set(self._cuts))
        self._apply()

    def packets_lost(self) -> int:
        """How many packets have been dropped since the cuts last changed; 0 if nothing is cut."""
        listed = json.loads(self._router.run("nft", "--json", "list", "ruleset"))["nftables"]
        return sum(
            part["counter"]["packets"]
            for entry in listed
            for part in entry.get("rule", {}).get("expr", ())
            if "counter" in part
        )

    def _apply(self) -> None:
        rules = sorted({rule for cut in self._cuts for rule in cut.rules})
        _load_rules(self._router, _chain("cuts", "filter hook forward priority 0", *rules))


class NatNetwork(_Network):
    """A host behind a NAT: it opens connections to this process, and no connection reaches it."""

    def __init__(self) -> None:
        super().__init__()
        try:
            self._nat = self._namespace()
            host = self._namespace()
            near, _ = self._link((self._here, _drawn_name()), (self._nat, "outside"))
            self.outside = NetworkHost(near)
            """Where this process listens so that the host behind the NAT reaches it."""
            gateway, behind = self._link((self._nat, "inside"), (host, "uplink"))
            host.run("ip", "route", "add", "default", "via", gateway)
            self.inside = NetworkHost(behind, host.enter)
            """The host behind the NAT."""
            self._nat.set("ipv4/ip_forward", 1)
            self.start()
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Stop the NAT: nothing passes, and it forgets all connections."""
        # Masquerading forgets the connections of an interface that goes down.
        self._nat.run("ip", "link", "set", "outside", "down")
        self._nat.run("nft", "flush", "ruleset")

    def start(self, *, resets: bool = False) -> None:
        """Start it without any connection.

        A packet of a connection that it does not know is dropped without a word or, with `resets`,
        answered by a reset.
        """
        silent = "policy drop"
        _load_rules(
            self._nat,
            _chain(
                "through",
                f"filter hook forward priority 0; {silent}",
                "ct state established,related accept",
                'iifname "inside" ct state new accept',
                *(["ct state invalid reject with tcp reset"] if resets else []),
            ),
            # Linux answers a packet to a port at which no process listens by a reset.
            _chain("arriving", f"filter hook input priority 0{'' if resets else f'; {silent}'}"),
            _chain(
                "leaving", "nat hook postrouting priority srcnat", 'oifname "outside" masquerade'
            ),
        )
        # Otherwise it would take a packet in the middle of a connection for the start of one.
        self._nat.set("netfilter/nf_conntrack_tcp_loose", 0)
        self._nat.run("ip", "link", "set", "outside", "up")


def _load_rules(namespace: _Namespace, *chains: str) -> None:
    """Let these chains be all the rules of a namespace, at once."""
    table = "\n".join(["flush ruleset", "table ip synod {", *chains, "}", ""])
    namespace.run("nft", "-f", "-", given=table)


def _chain(name: str, hook: str, *rules: str) -> str:
    """Rules that packets pass at a hook of nftables."""
    return "\n".join([f"chain {name} {{", f"type {hook};", *rules, "}"])


def _free_range(here: _Namespace) -> ipaddress.IPv4Network:
    """A range within the reserved one that no route of this machine covers, but the default one."""
    routes: list[dict[str, str]] = json.loads(here.run("ip", "-json", "-4", "route", "show"))
    taken = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    for drawn in _shuffled(_RESERVED):
        if not any(drawn.overlaps(network) for network in taken):
            return drawn
    raise NetworkUnavailableError(f"every range of {_RESERVED} is in use on this machine")


def _shuffled(network: ipaddress.IPv4Network) -> Iterator[ipaddress.IPv4Network]:
    ranges = list(network.subnets(new_prefix=_RANGE_BITS))
    random.shuffle(ranges)
    yield from ranges


def _drawn_name() -> str:
    """A name for an interface in the namespace that all runs share; 15 characters at most."""
    return f"synod-{secrets.token_hex(4)}"


def _program(name: str) -> str:
    """The path of a program; empty if it is not installed."""
    return shutil.which(name, path=_PATH) or ""
