"""The world: true time, the nodes, and what happens next.

Everything random comes from streams that one seed makes, a stream for each purpose, so that
leaving one fault out changes as little as possible of the rest.
"""

import heapq
import random
from collections.abc import Callable
from typing import Any

from actors.calls import Call, Read, ReadDone, Survey, Write, WriteDecided
from actors.effects import Blob, Envelope, Record, Send, SendBlob
from actors.messages import ReadRequest
from actors.options import Options
from actors.values import AnyOperation, IdempotencyKey
from chaos.simulator.clock import Clock
from chaos.simulator.disk import Disk
from chaos.simulator.interfaces import Trace
from chaos.simulator.machine import Machine
from chaos.simulator.network import Network
from chaos.simulator.violation import Violation

US = 1_000
"""Microseconds in a millisecond."""


def stream_of(seed: int, name: str) -> random.Random:
    """A source of randomness of its own for one purpose of one seed."""
    return random.Random(f"{seed}/{name}")


class Watcher:
    """Looks on at every step. The invariants fill this in; it does nothing itself."""

    hears: frozenset[type] = frozenset()
    """The types of the messages that `heard` is called with."""

    def heard(self, machine: Machine, envelope: Envelope) -> None:
        """An actor is about to take a message in."""

    def started(self, machine: Machine) -> None:
        """A process has restored its actor."""

    def stopped(self, machine: Machine) -> None:
        """A process is about to vanish; its actor can be looked at for the last time."""

    def stepped(self, machine: Machine, sends: list[Send | SendBlob]) -> None:
        """An actor took in the messages of a turn; nothing is durable or sent yet."""

    def committed(self, machine: Machine, records: list[Record], blobs: list[Blob]) -> None:
        """A turn's records are durable."""

    def published(self, machine: Machine, to: str, message: Any) -> None:
        """A message leaves a node."""

    def halted(self, machine: Machine, reason: str) -> None:
        """A node refuses to go on."""


class CallLost:
    """The answer to a call whose node died: its outcome is unknown to the caller."""


CALL_LOST = CallLost()


class World:
    """All nodes of one cluster, their disks and the broker between them."""

    def __init__(
        self,
        seed: int,
        options: Options | None = None,
        gateways: int = 1,
        watcher: Watcher | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.seed = seed
        self.options = options or Options()
        self.now_us = 0
        self.watcher = watcher or Watcher()
        self.trace = trace
        self._events: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._order = 0
        self.chances = self.stream("chances")
        self.jitter = self.stream("timers")
        self.identities = self.stream("identities")
        self.answers: dict[int, Any] = {}
        self.on_answer: Callable[[int, Any], None] | None = None
        self.on_death: Callable[[Machine], None] | None = None
        self.on_refusal: Callable[[Machine], None] | None = None
        self.halted: dict[str, str] = {}
        self._last_token = 0
        names = (*self.options.members, *(f"gateway-{n}" for n in range(1, gateways + 1)))
        self.names = names
        self.network = Network(self, names)
        self.machines = {name: self._new_machine(name) for name in names}

    def stream(self, name: str) -> random.Random:
        """A source of randomness of its own for one purpose."""
        return stream_of(self.seed, name)

    def _new_machine(self, name: str) -> Machine:
        disk = Disk(f"disk-{self.identities.getrandbits(64):016x}")
        base_ms = 1_000 + self.identities.randrange(100_000)
        return Machine(self, name, disk, Clock(base_ms, 0))

    # -- time ------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """True time in milliseconds."""
        return self.now_us // US

    def at_us(self, when_us: int, action: Callable[[Any], None], argument: Any = None) -> None:
        """Have `action` called with `argument` at a moment of true time."""
        self._order += 1
        heapq.heappush(self._events, (when_us, self._order, action, argument))

    def after_us(self, delay_us: int, action: Callable[[Any], None], argument: Any = None) -> None:
        """Have `action` called with `argument` after a while."""
        self._order += 1
        heapq.heappush(self._events, (self.now_us + delay_us, self._order, action, argument))

    def run(self, duration_ms: int) -> None:
        """Let time pass."""
        self.run_to_us(self.now_us + duration_ms * US)

    def run_to_us(self, end_us: int) -> None:
        """Let time pass until a moment."""
        events = self._events
        pop = heapq.heappop
        while events and events[0][0] <= end_us:
            self.now_us, _, action, argument = pop(events)
            action(argument)
        self.now_us = max(self.now_us, end_us)

    def run_until(
        self, condition: Callable[[], bool], within_ms: int, step_ms: int = 10, what: str = "it"
    ) -> None:
        """Let time pass until `condition` holds. Raises `Violation` if it never does."""
        end_us = self.now_us + within_ms * US
        while not condition():
            if self.now_us >= end_us:
                raise Violation(
                    "liveness", f"{what} did not come true within {within_ms} ms; {self.halted}"
                )
            self.run(step_ms)

    # -- nodes -----------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start processes on their disks; without names, all that are down."""
        for name in names or [name for name in self.names if not self.machines[name].is_up]:
            self.halted.pop(name, None)
            self.tell(f"{name} starts")
            self.machines[name].start()

    def crash(self, *names: str) -> None:
        """Processes vanish; what they committed stays."""
        for name in names:
            self.tell(f"{name} dies")
            self.machines[name].crash()

    def actor(self, name: str) -> Any:
        """A running node's actor."""
        return self.machines[name].actor

    def up(self, *roles: str) -> list[Machine]:
        """The running nodes of these roles."""
        return [m for m in self.machines.values() if m.is_up and m.role in roles]

    def died(self, machine: Machine) -> None:
        """A process died in its turn."""
        if self.on_death is not None:
            self.on_death(machine)

    def refused(self, machine: Machine) -> None:
        """A process did not start, because rows of its journal are rotten."""
        self.tell(f"{machine.name} refuses its rotten disk")
        if self.on_refusal is not None:
            self.on_refusal(machine)

    def tell(self, text: str) -> None:
        """Note something for the story of this run."""
        if self.trace is not None:
            self.trace.event(self.now_us, text)

    # -- doors -----------------------------------------------------------------------------------

    def call(self, make: Callable[[int], Call], gateway: str = "gateway-1") -> int:
        """Hand a call to a gateway; the token names its answer."""
        self._last_token += 1
        token = self._last_token
        self.machines[gateway].call(make(token))
        return token

    def answered(self, token: int, value: Any) -> None:
        """A call has its answer."""
        self.answers[token] = value
        if self.on_answer is not None:
            self.on_answer(token, value)

    def call_lost(self, token: int) -> None:
        """The node died with the call under way."""
        self.after_us(0, self._lose_call, token)

    def _lose_call(self, token: int) -> None:
        self.answered(token, CALL_LOST)

    def write(
        self,
        operation: AnyOperation,
        gateway: str = "gateway-1",
        retry: bool = False,
        key: IdempotencyKey | None = None,
    ) -> int:
        """Begin a write."""
        return self.call(
            lambda token: Write(
                token=token, operation=operation, retry_aborted=retry, idempotency=key
            ),
            gateway,
        )

    def answer(self, token: int, within_ms: int = 30_000) -> Any:
        """Run until the call is answered."""
        self.run_until(lambda: token in self.answers, within_ms, 1, f"the answer to call {token}")
        return self.answers.pop(token)

    def done(self, operation: AnyOperation, **more: Any) -> WriteDecided:
        """Write and wait for a decided outcome."""
        answer = self.answer(self.write(operation, **more))
        assert isinstance(answer, WriteDecided), answer
        return answer

    def read(self, path: str, what: Any = "entry", gateway: str = "gateway-1") -> ReadDone:
        """A linearizable read."""
        request = ReadRequest(number=0, what=what, path=path)
        answer = self.answer(self.call(lambda token: Read(token=token, request=request), gateway))
        assert isinstance(answer, ReadDone), answer
        return answer

    # -- conditions to wait for ------------------------------------------------------------------

    def ready(self, gateway: str = "gateway-1", within_ms: int = 60_000) -> None:
        """Wait until a write could start."""

        def is_ready() -> bool:
            if not self.machines[gateway].is_up:
                return False
            token = self.call(lambda token: Survey(token=token), gateway)
            self.run(1)
            answer = self.answers.pop(token, CALL_LOST)
            return bool(getattr(answer, "ready", False))

        self.run_until(is_ready, within_ms, 50, f"{gateway} to be ready")

    def settled(self, within_ms: int = 60_000) -> None:
        """Wait until stores and learners have applied the same slots and none is in doubt."""
        self.run_until(self.is_settled, within_ms, 50, "all replicas to be equal and none in doubt")

    def is_settled(self) -> bool:
        """Whether all running replicas are equal now, and none is in doubt."""
        actors = [machine.actor for machine in self.up("store", "learner")]
        states = {(actor.state.applied, actor.state.state_hash) for actor in actors}
        in_doubt = any(actor.heartbeat().in_doubt for actor in actors)
        return len(states) == 1 and not in_doubt
