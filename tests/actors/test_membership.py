"""The membership of the acceptors follows from the chosen prefix, as in the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.errors import InvariantViolation
from actors.paxos.membership import Configuration, Membership
from actors.values import NOOP, FoundingMember, Members, Settled
from chaos.model import membership as model

ALPHA = 3


def acceptors(*disks: str) -> tuple[FoundingMember, ...]:
    """Acceptor n of each disk, whose letters are the same in either case."""
    return tuple(FoundingMember(name=f"acceptor-{d.lower()}", disk=d) for d in disks)


def voters(disks: str) -> list[tuple[str, str]]:
    return [(member.name, member.disk) for member in acceptors(*disks)]


FOUNDED = Membership(
    active=(
        Configuration(version=0, named_slot=0, first_slot=1, acceptors=acceptors("a", "b", "c")),
    )
)
REPLACED = Members(version=1, acceptors=acceptors("A", "b", "c"))


def test_a_replacement_from_its_members_to_its_settled() -> None:
    amid = FOUNDED.after(5, REPLACED, ALPHA)
    assert [c.version for c in amid.active] == [0, 1]
    assert [amid.at(slot).version for slot in (5, 7, 8)] == [0, 0, 1]
    assert amid.are_quorums(voters("bc"))
    assert not amid.are_quorums(voters("ab")), "a is no member of the new one"
    assert not amid.are_quorums(voters("Ab")), "A is no member of the old one"
    assert amid.are_quorums(voters("aAb"))
    assert (amid.version_at(4), amid.version_at(5)) == (0, 1)

    ended = amid.after(8, Settled(version=1), ALPHA)
    assert ended.is_settled
    assert ended.are_quorums(voters("Ab"))
    assert not ended.are_quorums(voters("ab")), "the old disk counts no more"
    assert ended.version_at(0) == 1
    with pytest.raises(InvariantViolation, match="slot 7 is below 8"):
        ended.at(7)


def test_what_does_not_count_changes_nothing() -> None:
    amid = FOUNDED.after(5, REPLACED, ALPHA)
    assert FOUNDED.after(5, Settled(version=0), ALPHA) is FOUNDED
    assert FOUNDED.after(5, Members(version=2, acceptors=REPLACED.acceptors), ALPHA) is FOUNDED
    assert FOUNDED.after(5, NOOP, ALPHA) is FOUNDED
    assert amid.after(6, Members(version=2, acceptors=FOUNDED.newest.acceptors), ALPHA) is amid
    assert amid.after(7, Settled(version=1), ALPHA) is amid, "the new one has not begun"
    assert amid.after(8, Settled(version=2), ALPHA) is amid


@pytest.mark.parametrize("disks", ["ab", "abb", "aAb"])
def test_members_are_three_distinct_nodes_on_distinct_disks(disks: str) -> None:
    with pytest.raises(ValidationError):
        Members(version=1, acceptors=acceptors(*disks))


@given(
    alpha=st.integers(1, 4),
    prefix=st.lists(
        st.tuples(st.sampled_from(["command", "members", "settled"]), st.integers(1, 3)),
        max_size=14,
    ),
)
def test_the_membership_is_that_of_the_model(alpha: int, prefix: list[tuple[str, int]]) -> None:
    real, values = FOUNDED, list[int]()
    for slot, (kind, version) in enumerate(prefix, 1):
        if kind == "members":
            real = real.after(slot, Members(version=version, acceptors=acceptors(*"abc")), alpha)
            values.append(model.members(version))
        elif kind == "settled":
            real = real.after(slot, Settled(version=version), alpha)
            values.append(model.settled(version))
        else:
            real = real.after(slot, NOOP, alpha)
            values.append(1)
    expected = model.membership(tuple(values), alpha, frozenset())
    assert tuple(c.version for c in real.active) == expected.active
    assert real.newest.version == expected.newest
    end = len(prefix)
    for slot in range(max(end, real.active[0].first_slot), end + alpha + 1):
        assert real.at(slot).version == expected.at(slot)
    for mark in range(end + 1):
        assert real.version_at(mark) == expected.version_at(mark)
