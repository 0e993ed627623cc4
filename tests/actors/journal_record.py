"""Every kind of row in the journals of each role, as the release that recorded them wrote them.

A node goes over to another release, and back, on the journal that it has, so a release reads the
rows of the former one, and writes none that the former one can't read
(docs/decisions/0024-versions.md). The record is made once with a format of the rows::

    python -m tests.actors.journal_record
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.disk_events import RowRotten
from actors.effects import Record
from actors.node import Node
from actors.options import Identity, Options
from actors.roles import build_actor
from actors.values import Outcome
from chaos.simulator.world import World
from tests.worlds import founded, put

RECORD = Path(__file__).with_name("golden") / "journals-1.jsonl"
NODES = ("acceptor-1", "proposer-2", "learner-2", "store-1", "store-3", "gateway-1", "learner-1")
"""That of `learner-1` was recorded later than the others, in a cluster that has an audit."""

Journal = dict[str, str]
"""Keys to values."""


def eventful_world() -> World:
    """A cluster that has lived through a change of its coordinator, with a write in flight, a
    result whose caller has gone, and a store that knows that it has diverged.
    """
    world = founded()
    world.done(put("d/a", b"1"))
    world.crash("learner-1")
    learner = world.actor("learner-2")
    world.run_until(lambda: learner.view.epoch > 0, 20_000)
    world.start("learner-1")
    world.done(put("d/b", b"2"), retry=True)
    world.settled()
    world.run(1_000)
    world.network.cut |= {("learner-2", "store-3")}
    world.write(put("open", b"1"))
    world.run_until(lambda: any(world.actor("store-1").prepared), 5_000, 1)
    gateway, differs = world.actor("gateway-1"), world.actor("store-3")
    gateway.writes._keep_resolved("request-1", Outcome(status="done", slot=1, index=0))
    differs.rejoin.has_diverged = True
    differs._journal("diverged", b"true")
    return world


def rows_of(world: World, name: str) -> dict[str, bytes]:
    """The journal of a node, with what its next commit holds."""
    machine = world.machines[name]
    rows = dict(machine.disk.records)
    rows |= {record.key: record.value for record in machine.actor._take().records}
    return rows


def record() -> Iterator[str]:
    """A line for each node: its disk and its journal."""
    world = eventful_world()
    for name in NODES:
        rows = {key: value.decode() for key, value in sorted(rows_of(world, name).items())}
        disk = world.machines[name].disk.identity
        yield json.dumps({"node": name, "disk": disk, "rows": rows}, ensure_ascii=False)


def restored(name: str, disk: str, rows: Journal) -> Any:
    """The actor of a node that starts on a journal. Raises `JournalUnreadable`."""
    identity = Identity(name=name, disk=disk, incarnation=9, journal_commits=99, fresh_id="ab" * 16)
    actor = build_actor(identity, Options())
    assert isinstance(actor, Node)
    actor.restore([Record(key, value.encode()) for key, value in sorted(rows.items())], 1_000)
    return actor


def remade(actor: Any, key: str) -> str | None:
    """The row under `key` as this version writes it of what it has read."""
    actor._on_notice(RowRotten(key=key))
    written = {record.key: record.value for record in actor._take().records}
    return None if written.get(key) is None else written[key].decode()


if __name__ == "__main__":
    RECORD.write_text("".join(f"{line}\n" for line in record()), encoding="utf-8")
