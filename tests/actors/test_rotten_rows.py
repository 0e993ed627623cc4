"""A row that has rotted on the disk is remade from memory, as it was."""

import pytest

from actors.disk_events import RowRotten
from actors.errors import InvariantViolation
from actors.values import Outcome
from tests.worlds import founded, put


def test_every_row_of_every_journal_is_remade_as_it_was() -> None:
    """Given a cluster that has lived through a change of its coordinator, with a write in flight, a
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
    coordinator = world.actor("learner-2")
    world.network.cut |= {(coordinator.name, "store-3")}
    world.write(put("open", b"1"))
    world.run_until(lambda: any(world.actor("store-1").prepared), 5_000, 1)
    gateway, differs = world.actor("gateway-1"), world.actor("store-3")
    gateway.writes._keep_resolved("request-1", Outcome(status="done", slot=1, index=0))
    differs.rejoin.has_diverged = True
    differs._journal("diverged", b"true")
    kinds: dict[str, set[str]] = {}
    for machine in world.machines.values():
        rows = dict(machine.disk.records)
        rows |= {record.key: record.value for record in machine.actor._take().records}
        for key, value in rows.items():
            machine.actor._on_notice(RowRotten(key=key))
            written = {record.key: record.value for record in machine.actor._take().records}
            assert written[key] == value, (machine.name, key)
            role = machine.actor.identity.role
            kinds.setdefault(role, set()).add(key.partition("/")[0])

    state = {"entry", "session", "result", "state", "genesis"}
    assert kinds == {
        "acceptor": {"genesis", "promised", "accepted", "truncated"},
        "proposer": {"genesis", "round"},
        "learner": {"log", *state},
        "store": {"prepared", "fence", "diverged", *state},
        "gateway": {"genesis", "session", "resolved"},
    }


@pytest.mark.parametrize(
    ("name", "key"),
    [("acceptor-1", "promise"), ("proposer-1", "rounds"), ("gateway-1", "x/1")],
)
def test_a_rotten_row_that_is_not_in_memory_halts_a_node_that_may_not_lose_it(
    name: str, key: str
) -> None:
    actor = founded().actor(name)
    with pytest.raises(InvariantViolation, match="its memory does not know the row"):
        actor._on_notice(RowRotten(key=key))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("acceptor-1", "accepted/00000000000000ff"),
        ("learner-1", "log/00000000000000ff"),
        ("store-1", "prepared/00000000000000ff"),
        ("store-1", "entry/gone"),
        ("store-1", "result/s/0000000000000001"),
    ],
)
def test_a_rotten_row_that_is_no_longer_needed_is_removed(name: str, key: str) -> None:
    actor = founded().actor(name)
    actor._on_notice(RowRotten(key=key))
    assert (key, None) in [(record.key, record.value) for record in actor._take().records]
