"""Simulated clusters that tests drive by hand, without a storm."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from actors.options import Options
from actors.values import Inline, PutFile
from chaos.simulator.network import Conditions, Parcel
from chaos.simulator.world import World


def put(path: str, data: bytes, **more: Any) -> PutFile:
    """A write of inline contents."""
    digest = hashlib.sha256(data).hexdigest()
    return PutFile(path=path, content=Inline(sha256=digest, data=data), **more)


def founded(seed: int = 1, gateways: int = 1, options: Options | None = None) -> World:
    """A cluster that can be written to, with a hop that takes one millisecond."""
    world = World(seed, options, gateways)
    world.network.conditions = Conditions(least_us=1_000, most_us=1_000)
    world.start()
    for number in range(1, gateways + 1):
        world.ready(f"gateway-{number}")
    return world


@contextmanager
def intercepted(world: World, passes: Callable[[str, str, Any], bool]) -> Iterator[None]:
    """Within the block only that is published which `passes(sender, to, message)`."""
    network = world.network

    def publish(sender: str, to: str, parcel: Parcel) -> None:
        rest = tuple(envelope for envelope in parcel if passes(sender, to, envelope.message))
        if rest:
            type(network).publish(network, sender, to, rest)

    with patch.object(network, "publish", publish):
        yield
