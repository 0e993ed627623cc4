"""A row that has rotted on the disk is remade from memory, as it was."""

import pytest

from actors.disk_events import RowRotten
from actors.errors import InvariantViolation
from tests.actors.journal_record import eventful_world, remade, rows_of
from tests.worlds import founded


def test_every_row_of_every_journal_is_remade_as_it_was() -> None:
    world = eventful_world()
    for name, machine in world.machines.items():
        for key, value in rows_of(world, name).items():
            assert remade(machine.actor, key) == value.decode(), (name, key)


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
