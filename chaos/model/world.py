"""The bounds of a model, and its states."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Scope:
    """The bounds of one model, and which parts of the protocol it has."""

    name: str
    what: str
    configurations: tuple[str, ...]
    """The disks of each version, a letter a disk: `a` and `A` are two disks under one name."""
    alpha: int
    slots: int
    ballots: int
    leases: bool = False
    reads: bool = False
    lazy_marks: bool = False
    """Whether the durable mark, and each proposer's knowledge of it, lags behind the prefix."""
    truncates: bool = False
    restarts: bool = False
    late: bool = False
    """Whether ballots above the first stand only once a Settled is chosen. It makes a scope deeper.
    """
    heals: bool = False
    """Whether every state is healed: see `chaos.model.healing`."""


class AcceptorState(NamedTuple):
    """One disk. Slots are bits."""

    promised: int
    """The highest ballot that it serves."""
    votes: tuple[int, ...]
    """For each ballot, the slots that it accepted under it."""
    promises: tuple[int, ...]
    """For each ballot, 0, or the first slot that the promise covers."""
    fence: int
    """The newest version that it has answered with yes."""
    hold: int
    """The ballot to which it grants the lease; negative if it has forgotten that."""
    reads: int
    """The read leases that its hold covers: bit `5 * (ballot - 1)` + the sum of the versions."""
    kept_from: int
    """The first slot that is not truncated."""


class ProposerState(NamedTuple):
    """The proposer of one ballot."""

    phase: int
    """0 idle, 1 a candidate, 2 a leader."""
    through: int
    mark: int
    low: int
    """The first slot of phase 1, then of `values`."""
    values: tuple[int, ...]
    """What it proposed, from slot `low` on."""


class ModelState(NamedTuple):
    """A state of the whole."""

    acceptors: tuple[AcceptorState, ...]
    proposers: tuple[ProposerState, ...]
    chosen: tuple[int, ...]
    """For each slot, what was chosen first: a fact, whoever knows it."""
    mark: int
    """The durable mark: what the coordinator and all stores of the view hold."""
