"""The stage for golden scenarios: a simulated cluster whose messages are written down as a story.

The network takes exactly one millisecond, so messages that belong together leave at one moment: the
same message from several nodes is one line. Routine messages of every cluster are left out, unless
a scenario is about them.
"""

from collections.abc import Callable
from typing import Any

from actors.messages import (
    Accept,
    ChangeAnswer,
    ChangeMember,
    Prepare,
    ProposeValue,
    ReadReply,
    Redirect,
    Reject,
    Result,
    Submit,
    TxnState,
)
from actors.options import Options
from actors.values import Abort, AnyVote, Batch, Members, Settled, View
from chaos.simulator.invariants import Invariants
from chaos.simulator.network import Conditions
from chaos.simulator.parcels import Envelopes
from chaos.simulator.world import World
from tests.worlds import put

_ALWAYS = frozenset(
    (
        "leader.beat",
        "learn.chosen",
        "learn.progress",
        "learn.pull",
        "lease.ask",
        "lease.grant",
        "lease.granted",
        "lease.heartbeat",
        "log.truncate",
        "node.heartbeat",
        "read.reply",
        "read.request",
        "replica.diverged",
        "sync.decided",
        "sync.pull",
    )
)
_GROUPS = ("proposer", "acceptor", "learner", "store")


class Stage:
    """One scenario: `given`, `when` and `then` write lines, and the messages between them."""

    def __init__(self, seed: int = 3, also: tuple[str, ...] = (), **options: Any) -> None:
        self.world = World(seed, Options(**options), observer=Invariants(), trace=self)
        self.world.network.conditions = Conditions(least_us=1_000, most_us=1_000)
        self.lines: list[str] = []
        self._left_out = _ALWAYS - frozenset(also)
        self._heard: list[tuple[int, str, str, Any, str]] = []
        self._said: dict[tuple[str, str], int] = {}
        self._listening = False
        self._last: tuple[str, ...] = ()

    # -- telling ---------------------------------------------------------------------------------

    def given(self, text: str) -> None:
        """The initial state; from here on, messages are written down."""
        self._heard.clear()
        self._listening = True
        self.lines.append(f"given {text}")

    def when(self, text: str) -> None:
        """What happens now."""
        self._write_exchange()
        self.lines.append(f"when {text}")

    def then(self, text: str, *, holds: bool) -> None:
        """What must hold now. Raises `AssertionError` if it does not."""
        self._write_exchange()
        assert holds, f"not so: {text}\n{self.text}"
        self.lines.append(f"then {text}")

    @property
    def text(self) -> str:
        """The scenario so far."""
        return "\n".join(self.lines) + "\n"

    # -- doing -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Found the cluster, elect `proposer-1`, open the gateway's session and settle."""
        self.world.start()
        self.world.ready()
        self.write("warm", "up")
        self.world.settled()
        self.world.run(3_000)
        assert self.leader.name == "proposer-1", "another seed makes for an easier reading"

    def write(self, path: str, text: str) -> Any:
        """Write and wait for the outcome."""
        return self.world.done(put(path, text.encode()), retry=True).outcome

    def begin(self, path: str, text: str) -> int:
        """Begin a write; the token names its answer. The gateway does not retry it when aborted."""
        return self.world.write(put(path, text.encode()))

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let time pass until a condition holds."""
        self.world.run_until(condition, 30_000, 1, what)

    def until_said(self, sender: str, kind: str) -> None:
        """Let time pass until `sender` sends one more message of a type."""
        before = self._said.get((sender, kind), 0)
        self.until(lambda: self._said.get((sender, kind), 0) > before, f"{sender} to say {kind}")

    def said(self, sender: str, kind: str) -> int:
        """How many messages of a type a node has sent, counted once for each receiver."""
        return self._said.get((sender, kind), 0)

    def cut(self, senders: tuple[str, ...], receivers: tuple[str, ...]) -> None:
        """Block all messages from these nodes to those."""
        self.world.network.cut |= {(s, r) for s in senders for r in receivers}

    def heal(self) -> None:
        """Let all messages pass again."""
        self.world.network.cut.clear()

    @property
    def leader(self) -> Any:
        """The actor that leads and holds the lease, if one does."""
        leading = [m.actor for m in self.world.up("proposer") if m.actor.holds_lease]
        return leading[0] if leading else None

    # -- what the world tells --------------------------------------------------------------------

    def event(self, at_us: int, text: str) -> None:
        """See `TraceSink`; scenarios report such events themselves."""

    def parcel(
        self,
        at_us: int,
        arrives_us: int | None,
        sender: str,
        receiver: str,
        parcel: Envelopes,
        *,
        duplicate: bool,
    ) -> None:
        """See `TraceSink`."""
        for envelope in parcel:
            message: Any = envelope.message
            self._said[sender, message.type] = self._said.get((sender, message.type), 0) + 1
            if self._listening and message.type not in self._left_out and sender != receiver:
                if arrives_us is None:
                    fate = "lost"
                else:
                    fate = "" if self.world.machines[receiver].is_up else "down"
                self._heard.append((at_us, sender, receiver, message, fate))

    # -- writing ---------------------------------------------------------------------------------

    def _write_exchange(self) -> None:
        """A line for each message: at one moment, first all its senders, then all its receivers."""
        by_sender: dict[tuple[int, str, str], dict[str, str]] = {}
        for at_us, sender, receiver, message, fate in self._heard:
            by_sender.setdefault((at_us, sender, phrase(message)), {})[receiver] = fate
        lines: dict[tuple[int, str, tuple[tuple[str, str], ...]], list[str]] = {}
        for (at_us, sender, text), receivers in by_sender.items():
            lines.setdefault((at_us, text, tuple(sorted(receivers.items()))), []).append(sender)
        for (_, text, fates), senders in lines.items():
            self._write_line(
                f"    {self._names(senders):<22} → {self._receivers(fates):<26} {text}"
            )
        self._heard.clear()

    def _write_line(self, line: str) -> None:
        """A repeated line is only counted."""
        again, _, times = self.lines[-1].partition("   ×")
        if again == line:
            self.lines[-1] = f"{line}   ×{int(times or 1) + 1}"
        else:
            self.lines.append(line)

    def _receivers(self, fates: tuple[tuple[str, str], ...]) -> str:
        parts = []
        for fate in ("", "lost", "down"):
            names = [name for name, its in fates if its == fate]
            if names:
                parts.append(self._names(names) + (f" ({fate})" if fate else ""))
        return ", ".join(parts)

    def _names(self, names: list[str]) -> str:
        """A role's members together are called by the role, like the groups of the topology."""
        left = sorted(names)
        parts = []
        for role in _GROUPS:
            members = self.world.options.names(role)
            if len(members) > 1 and all(name in left for name in members):
                parts.append(f"{role}s")
                left = [name for name in left if name not in members]
        return ", ".join((*parts, *left))


def phrase(message: Any) -> str:
    """A message in a few words: what matters to the order of events, and no identities."""
    words = [message.type]
    for name in ("epoch", "slot", "ballot"):
        value = getattr(message, name, None)
        if value is not None:
            words.append(f"{name} {value}")
    view = getattr(message, "view", None)
    if view is not None and not hasattr(message, "epoch"):
        words.append(f"epoch {view.epoch}")
    words.extend(_more(message))
    return " ".join(words)


def _more(message: Any) -> list[str]:
    match message:
        case Submit(command=command):
            return [f"[{_operation(command.operation)}]"]
        case Accept(value=value) | ProposeValue(value=value):
            return [f"[{_value(value)}]"]
        case Result(outcome=outcome):
            return [f"{outcome.status} at {outcome.slot}.{outcome.index}"]
        case Redirect(never_proposed=never):
            return ["never proposed" if never else "may have been proposed"]
        case Reject(promised=promised, lease_left_ms=left):
            return [f"promised {promised}" + (", a lease runs" if left else "")]
        case TxnState(applied=applied, prepared=prepared):
            slots = ", ".join(str(one.slot) for one in prepared) or "none"
            return [f"applied {applied}, prepared {slots}"]
        case ReadReply(status=status, applied=applied):
            return [f"{status} at {applied}"]
        case ChangeMember(name=name, action=action):
            return [f"{action} {name}"]
        case ChangeAnswer(version=version, refused=reason):
            return [f"refused: {reason}" if reason else f"version {version} has begun"]
        case Prepare(first_slot=first_slot, version=version):
            return [f"from {first_slot}", *([f"version {version}"] if version else [])]
    extra = [f"from {message.first_slot}"] if hasattr(message, "first_slot") else []
    if entries := getattr(message, "accepted", ()):
        accepted = (f"slot {e.slot} at {e.ballot} [{_value(e.value)}]" for e in entries)
        extra.append(f"has {', '.join(accepted)}")
    if aborted := getattr(message, "aborted", ()):
        extra.append(f"aborted {', '.join(str(one.index) for one in aborted)}")
    if refused := getattr(message, "refused", ()):
        extra.append(f"refused {', '.join(str(one.index) for one in refused)}")
    return extra


def _value(value: AnyVote) -> str:
    match value:
        case Batch(commands=commands):
            return "; ".join(_operation(command.operation) for command in commands)
        case View(epoch=epoch, coordinator=coordinator, stores=stores):
            names = ", ".join(store.name for store in stores)
            return f"view {epoch}: {coordinator} coordinates {names}"
        case Abort(slot=slot, commands=commands, epoch=epoch):
            indices = ", ".join(map(str, commands))
            return f"abort {indices} of slot {slot} in epoch {epoch}"
        case Members(version=version):
            return f"acceptors of version {version}"
        case Settled(version=version):
            return f"version {version} alone"
        case _:
            return value.kind


def _operation(operation: Any) -> str:
    path = getattr(operation, "path", "")
    return f"{operation.kind} {path}".strip()
