"""The faults of a run: drawn from the seed before the run begins.

Some faults are conditions that last for the whole storm, such as `loss`; the others are incidents,
which begin at one moment, have a target and last for a while. Every fault draws from a stream of
its own, so that the others stay the same when one is left out.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from actors.options import Options
from chaos.simulator.clock import PPM
from chaos.simulator.cluster_shapes import USUAL, Shape, draw_shape, shaped
from chaos.simulator.machine import CRASH_POINTS
from chaos.simulator.network import Conditions

CONDITIONS = (
    "loss",
    "duplication",
    "reordering",
    "delay",
    "clocks",
    "disks",
    "snapshots",
    "pages",
    "expiry",
    "shapes",
    "slow-clients",
)
"""`clocks`: rates differ, within the lease margin. `disks`: commits are slow. `snapshots`: the log
is truncated early, so that a node that was down must copy a snapshot. `pages`: promises, logs and
snapshots are sent in small pages. `expiry`: sessions expire after half a minute without use.
`shapes`: the cluster has other numbers of nodes, or other replicated settings. `slow-clients`:
some pause for up to half a minute between two chunks of a large file, and stores keep unused
chunks for seconds.
"""

INCIDENTS = (
    "crash",
    "turn",
    "pause",
    "partition",
    "one-way",
    "partial",
    "broker",
    "timers",
    "slow-disk",
    "disk-loss",
    "full-disk",
    "bit-rot",
    "usurper",
    "half-told",
    "blocked",
    "settings",
    "replace",
    "members",
    "garbage",
)
"""`turn`: a process dies at one point of a turn. `partition`: nodes lose their connection to the
broker, `one-way`: a node's messages are lost, or all those to it, `partial`: some pairs of nodes
don't reach each other. `broker`: it restarts and loses timers and messages. `timers`: stale ones
expire. `disk-loss`: a store or a learner restarts with an empty disk. `full-disk`: a disk has
little space or none for a while. `bit-rot`: a blob or a row is no longer what was committed.
`usurper`: the leader reaches no proposer while acceptors restart. `half-told`: the coordinator's
decisions reach clients, but no replica, and a store becomes unresponsive. `blocked`: a resource
alarm of the broker, which drops or delays what some nodes or all publish, and still delivers from
its queues. `settings`: nodes restart with another value of one setting, which they must refuse or
tolerate. `replace`: an acceptor loses its disk, and an operator replaces it. `members`: an operator
adds or removes a member of any role, or a proposer loses its disk. `garbage`: the leader proposes
what is no batch, as no correct one does."""

BEYOND = ("clocks-beyond",)
"""Faults that the protocol does not tolerate: `clocks-beyond` shows what the margin is for."""

_LATEST = (
    "expiry",
    "shapes",
    "blocked",
    "slow-clients",
    "settings",
    "replace",
    "members",
    "garbage",
)
"""Newer faults are drawn last, so that a seed draws the older ones as it did before."""

ALL = (*(name for name in (*CONDITIONS, *INCIDENTS) if name not in _LATEST), *_LATEST)

KNOWN = (*ALL, *BEYOND)

TARGETS = (
    "leader",
    "leader",
    "leader",
    "coordinator",
    "coordinator",
    "proposer",
    "acceptor",
    "acceptors-2",
    "acceptors-3",
    "learner",
    "store",
    "store",
    "stores-2",
    "gateway",
    "all",
)
DISK_TARGETS = ("store", "store", "store", "learner", "coordinator")
"""Nodes that may lose a disk."""

_PERIOD_MS = 9_000
"""About how often one kind of incident happens."""


_BLOCKED_MS = (1_000, 30_000)
"""A broker with a memory or disk alarm takes long to recover."""

_SETTINGS_LAST = 2
"""So many times as long as other incidents: a wrong setting has effects only after a while."""

_PAUSES_MS = (3_000, 8_000, 15_000, 30_000)
"""Longer than stores keep unused chunks; short enough for several pauses in a run."""

WITHIN_MARGIN = 0.05
BEYOND_MARGIN = 0.35


class Incident(NamedTuple):
    """A fault with a beginning: at `at_ms` of the storm, `fault` hits `target` for `duration_ms`.

    `name` does not depend on the other faults of the run. `seed` decides what depends on the
    cluster's state at that moment: which of several nodes, which pairs, which point of a turn.
    """

    name: str
    at_ms: int
    fault: str
    target: str
    duration_ms: int
    seed: int


@dataclass(frozen=True, slots=True)
class FaultScript:
    """The faults of one run: conditions of the whole storm, and incidents."""

    faults: tuple[str, ...]
    conditions: Conditions = field(default_factory=Conditions)
    clocks_off: float = 0.0
    """The largest deviation of a clock's rate; the rates change every few seconds."""
    disk_us: dict[str, tuple[int, int]] = field(default_factory=dict)
    pause_ms_max: int = 0
    """The longest pause of slow clients between two chunks."""
    incidents: tuple[Incident, ...] = ()
    from_the_start: bool = False
    """Whether the storm begins before the cluster is founded."""


def parse_faults(text: str) -> tuple[str, ...]:
    """Parse `all`, `none` or a list with commas. Raises `ValueError` for unknown names."""
    if text == "all":
        return ("all",)
    if text == "none":
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in KNOWN]
    if unknown or not names:
        raise ValueError(
            f"no such fault: {', '.join(unknown) or text!r}; known are all, none, "
            f"{', '.join(KNOWN)}"
        )
    return names


def renewals_arrive(faults: tuple[str, ...]) -> bool:
    """Whether every message reaches its node within moments under these faults."""
    return not set(faults) & {*INCIDENTS, "loss", "delay"}


def chosen_faults(faults: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
    """With `all`, each seed draws a mixture, so that some runs have a few faults only."""
    if faults != ("all",):
        return faults
    share = rng.choice((0.25, 0.5, 0.8, 1.0))
    mixture = tuple(name for name in ALL if rng.random() < share)
    return (
        mixture if set(mixture) & {"crash", "turn", "pause", "partition"} else (*mixture, "crash")
    )


def shape_of_seed(faults: tuple[str, ...], stream: Callable[[str], random.Random]) -> Shape:
    """The shape of one seed's cluster."""
    if "shapes" in chosen_faults(faults, stream("mixture")):
        return draw_shape(stream("fault shapes"))
    return USUAL


def draw_options(faults: tuple[str, ...], stream: Callable[[str], random.Random]) -> Options:
    """The settings of one seed's cluster."""
    mixture = chosen_faults(faults, stream("mixture"))
    options = shaped(Options(), shape_of_seed(faults, stream))
    if "snapshots" in mixture:
        rng = stream("fault snapshots")
        options = replace(
            options,
            log_bytes=rng.choice((0, 0, 100_000, 16 * 1024 * 1024)),
            sync_ms=rng.choice((200, 1_000, 4_000)),
            heartbeat_ms=rng.choice((500, 2_000)),
        )
    if "pages" in mixture:
        options = replace(options, page_bytes=stream("fault pages").choice((400, 2_000, 8_000)))
    if "expiry" in mixture:
        expiry_ms = stream("fault expiry").choice((30_000, options.session_expiry_ms))
        options = replace(options, session_expiry_ms=expiry_ms)
    if "slow-clients" in mixture:
        grace_ms = stream("fault grace").choice((2_000, 2_000, 10_000, options.chunk_grace_ms))
        options = replace(options, chunk_grace_ms=grace_ms)
    return options


def draw_fault_script(
    faults: tuple[str, ...],
    names: tuple[str, ...],
    storm_ms: int,
    stream: Callable[[str], random.Random],
) -> FaultScript:
    """The faults of one seed. `faults` are names; `stream` gives each its own randomness."""
    mixture = chosen_faults(faults, stream("mixture"))
    conditions = Conditions()
    clocks_off = 0.0
    disks: dict[str, tuple[int, int]] = {}
    pause_ms_max = 0
    for fault in mixture:
        rng = stream(f"fault {fault}")
        match fault:
            case "loss":
                conditions.loss = rng.choice((0.002, 0.01, 0.03, 0.08))
            case "duplication":
                conditions.duplication = rng.choice((0.01, 0.05, 0.2))
            case "reordering":
                conditions.reordering = rng.choice((0.02, 0.1, 0.5))
                conditions.reorder_us_max = rng.choice((5_000, 50_000, 300_000))
            case "delay":
                conditions.most_us = rng.choice((5_000, 30_000, 80_000))
                conditions.lag = rng.choice((0.0, 0.002, 0.01))
                conditions.lag_us_max = rng.choice((300_000, 2_000_000, 5_000_000))
            case "clocks":
                clocks_off = WITHIN_MARGIN
            case "clocks-beyond":
                clocks_off = BEYOND_MARGIN
            case "disks":
                most_us = rng.choice((2_000, 10_000, 40_000))
                disks = dict.fromkeys(names, (most_us // 10, most_us))
            case "slow-clients":
                pause_ms_max = rng.choice(_PAUSES_MS)
    incidents = [
        incident
        for fault in mixture
        if fault in INCIDENTS
        for incident in _incidents(fault, storm_ms, stream(f"fault {fault}"))
    ]
    incidents.sort(key=lambda incident: (incident.at_ms, incident.name))
    return FaultScript(
        faults=mixture,
        conditions=conditions,
        clocks_off=clocks_off,
        disk_us=disks,
        pause_ms_max=pause_ms_max,
        incidents=tuple(incidents),
        from_the_start=stream("start").random() < 0.25,
    )


def draw_rate_ppm(rng: random.Random, off: float) -> int:
    """A rate, mostly one of the extremes: clocks that agree test nothing."""
    part = rng.choice((-1.0, 1.0, -1.0, 1.0, rng.uniform(-1, 1)))
    return PPM + int(PPM * off * part)


def _incidents(fault: str, storm_ms: int, rng: random.Random) -> list[Incident]:
    """The incidents of one fault, some far apart and some close together."""
    found: list[Incident] = []
    at_ms = rng.randrange(_PERIOD_MS)
    while at_ms < storm_ms:
        target = rng.choice(TARGETS)
        if fault == "disk-loss":
            target = rng.choice(DISK_TARGETS)
        if fault == "bit-rot":
            target = rng.choice((*DISK_TARGETS, "store", "acceptor", "proposer"))
        if fault in ("broker", "partial"):
            target = "all"
        if fault in ("replace", "members"):
            target = "acceptor"
        if fault == "garbage":
            target = "leader"
        if not found and fault in ("crash", "pause", "partition"):
            target = "leader"  # Every such run has a change of leaders.
        duration_ms = _draw_duration_ms(fault, rng)
        found.append(
            Incident(
                name=f"{fault}.{len(found)}",
                at_ms=at_ms,
                fault=fault,
                target=target,
                duration_ms=duration_ms,
                seed=rng.getrandbits(32),
            )
        )
        if fault in ("blocked", "settings"):
            at_ms += duration_ms  # Else such a run would hardly write anything.
        longest = rng.choice((300, 2_000, _PERIOD_MS * 2, _PERIOD_MS * 2, _PERIOD_MS * 2))
        at_ms += rng.randint(longest // 3, longest)
    return found


def _draw_duration_ms(fault: str, rng: random.Random) -> int:
    longest = rng.choice((150, 700, 2_500, 6_000))
    duration_ms = rng.randint(longest // 10, longest)
    if fault in ("usurper", "half-told"):
        duration_ms += 2_500
    if fault == "settings":
        duration_ms *= _SETTINGS_LAST
    if fault == "blocked":
        least, most = _BLOCKED_MS
        duration_ms = least + duration_ms * (most - least) // 6_000
    return duration_ms


def draw_crash_point(rng: random.Random) -> str:
    """One of the points of a turn at which a process can die."""
    return rng.choice(CRASH_POINTS)
