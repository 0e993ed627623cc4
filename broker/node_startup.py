"""Starts a node: its journal, its actor, its transport and the runtime around them."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from actors.options import Identity, Options
from actors.roles import build_actor
from broker.journal import Journal
from broker.journal_folder import JournalFull
from broker.keys import KeyRing
from broker.observer import Interceptor, Observer
from broker.runtime import HostedActor, HostOptions, NodeHost
from broker.transport import Transport

log = logging.getLogger("synod.launch")

DISK_FULL_RETRY_S = 1.0


def make_host(
    name: str,
    options: Options,
    journal: Journal,
    transport: Transport,
    *,
    host_options: HostOptions | None = None,
    observer: Observer | None = None,
    interceptor: Interceptor | None = None,
) -> NodeHost:
    """The runtime of the member (or gateway) `name`, ready to `run`.

    Raises `ValueError` if the options have no such member.
    """

    def make_actor(identity: Identity) -> HostedActor:
        return build_actor(identity, options)

    return NodeHost(
        name,
        make_actor,
        journal,
        transport,
        options=host_options,
        observer=observer,
        interceptor=interceptor,
    )


async def run_node(
    name: str,
    options: Options,
    folder: Path,
    transport: Transport,
    *,
    cluster_name: str = "default",
    host_options: HostOptions | None = None,
    observer: Observer | None = None,
    interceptor: Interceptor | None = None,
    started: Callable[[NodeHost], None] | None = None,
    keys: KeyRing | None = None,
    encrypted: bool = False,
) -> None:
    """Run one node on the journal in `folder` until it is cancelled or fails.

    It starts once its disk has space; `started` is called with the host before its first turn.
    `keys` and `encrypted` are those of `Journal.open`.
    Raises `JournalError`, `TransportRefused`, `NodeHalted` or `ValueError` (no such member), each
    with a text for people.
    """
    with await _open_once_disk_has_space(
        folder, name, cluster_name, keys=keys, encrypted=encrypted
    ) as journal:
        host = make_host(
            name,
            options,
            journal,
            transport,
            host_options=host_options,
            observer=observer,
            interceptor=interceptor,
        )
        if started is not None:
            started(host)
        await host.run()


async def _open_once_disk_has_space(
    folder: Path,
    name: str,
    cluster_name: str,
    *,
    keys: KeyRing | None = None,
    encrypted: bool = False,
) -> Journal:
    """Open the journal, which needs a commit; on a full disk, retry until there is space."""
    logged = False
    while True:
        try:
            return Journal.open(folder, name, cluster_name, keys=keys, encrypted=encrypted)
        except JournalFull as error:
            if not logged:
                log.critical("%s does not start until its disk has space: %s", name, error)
                logged = True
        await asyncio.sleep(DISK_FULL_RETRY_S)
