"""The world: one simulated cluster with its time, its network and its machines."""

import random
from collections.abc import Callable
from typing import Any

from actors.calls import Call, Read, ReadDone, Survey, Write, WriteDecided
from actors.messages import ReadRequest
from actors.options import Options
from actors.values import AnyOperation, IdempotencyKey
from chaos.simulator.clock import Clock
from chaos.simulator.disk import Disk
from chaos.simulator.machine import Machine, MachineObserver
from chaos.simulator.network import Network
from chaos.simulator.random_streams import random_stream
from chaos.simulator.schedule import US_PER_MS, Schedule
from chaos.simulator.trace import TraceSink
from chaos.simulator.violation import Violation


class NodeDied:
    """The answer to a call whose gateway died: its outcome is unknown to the caller."""


NODE_DIED = NodeDied()


class World:
    """All nodes of one cluster, their disks and the broker between them.

    Only the world knows both the machines and the network. They share its schedule.
    """

    def __init__(
        self,
        seed: int,
        options: Options | None = None,
        gateways: int = 1,
        observer: MachineObserver | None = None,
        trace: TraceSink | None = None,
    ) -> None:
        self.seed = seed
        self.options = options or Options()
        self.schedule = Schedule()
        self.observer = observer or MachineObserver()
        self._trace = trace
        self.rng = self.stream("chances")
        self.timer_rng = self.stream("timers")
        self.identity_rng = self.stream("identities")
        self.answers: dict[int, Any] = {}
        self.on_answer: Callable[[int, Any], None] | None = None
        self.on_death: Callable[[Machine], None] | None = None
        self.on_refusal: Callable[[Machine], None] | None = None
        self.halted: dict[str, str] = {}
        """Why nodes have halted, by name."""
        self._last_token = 0
        names = (*self.options.members, *(f"gateway-{n}" for n in range(1, gateways + 1)))
        self.names = names
        self.network = Network(self.schedule, self.stream("network"), names, trace)
        self.machines = {name: self._new_machine(name) for name in names}
        self.network.attach(self.machines.values())

    def stream(self, purpose: str) -> random.Random:
        """A source of randomness of its own for one purpose."""
        return random_stream(self.seed, purpose)

    def _new_machine(self, name: str) -> Machine:
        disk = Disk(f"disk-{self.identity_rng.getrandbits(64):016x}")
        base_ms = 1_000 + self.identity_rng.randrange(100_000)
        return Machine(self, name, disk, Clock(base_ms, 0))

    # -- time ------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """True time in milliseconds."""
        return self.schedule.now_ms

    @property
    def now_us(self) -> int:
        """True time in microseconds."""
        return self.schedule.now_us

    def run(self, duration_ms: int) -> None:
        """Let time pass."""
        self.schedule.run_to_us(self.schedule.now_us + duration_ms * US_PER_MS)

    def run_until(
        self, condition: Callable[[], bool], within_ms: int, step_ms: int = 10, what: str = "it"
    ) -> None:
        """Let time pass until `condition` holds. Raises `Violation` if it never does."""
        end_us = self.now_us + within_ms * US_PER_MS
        while not condition():
            if self.now_us >= end_us:
                raise Violation(
                    "liveness", f"{what} did not come true within {within_ms} ms; {self.halted}"
                )
            self.run(step_ms)

    def add_machine(self, name: str) -> Machine:
        """A node that the settings do not name, on an empty disk, and not started."""
        machine = self.machines[name] = self._new_machine(name)
        self.names = (*self.names, name)
        self.network.add(machine)
        return machine

    def restart(self, machine: Machine) -> None:
        """Start a node, unless it was retired meanwhile: another one may have its name."""
        if self.machines.get(machine.name) is machine:
            self.start(machine.name)

    def retire(self, name: str) -> Machine:
        """Switch a node off for good, with its disk and its queue."""
        machine = self.machines.pop(name)
        if machine.is_up:
            machine.crash()
        self.names = tuple(other for other in self.names if other != name)
        self.halted.pop(name, None)
        self.network.remove(name)
        return machine

    def named(self, role: str) -> list[str]:
        """The nodes of a role that were not retired, running or not."""
        return [name for name in self.names if self.machines[name].role == role]

    # -- nodes -----------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start processes on their disks; without names, all that are down."""
        for name in names or [name for name in self.names if not self.machines[name].is_up]:
            self.halted.pop(name, None)
            self.trace_event(f"{name} starts")
            self.machines[name].start()

    def crash(self, *names: str) -> None:
        """End processes without warning; what they committed stays."""
        for name in names:
            self.trace_event(f"{name} dies")
            self.machines[name].crash()

    def actor(self, name: str) -> Any:
        """A running node's actor."""
        return self.machines[name].actor

    def up(self, *roles: str) -> list[Machine]:
        """The running nodes of these roles."""
        return [m for m in self.machines.values() if m.is_up and m.role in roles]

    def process_died(self, machine: Machine) -> None:
        """A process died in its turn."""
        if self.on_death is not None:
            self.on_death(machine)

    def disk_refused(self, machine: Machine) -> None:
        """A process did not start, because rows of its journal are rotten."""
        self.trace_event(f"{machine.name} refuses its rotten disk")
        if self.on_refusal is not None:
            self.on_refusal(machine)

    def node_halted(self, machine: Machine, reason: str) -> None:
        """A node has halted, or has refused to start."""
        self.trace_event(f"{machine.name} halts: {reason}")
        self.halted[machine.name] = reason
        self.observer.halted(machine, reason)

    def trace_event(self, text: str) -> None:
        """Add something that is no message to the trace."""
        if self._trace is not None:
            self._trace.event(self.now_us, text)

    # -- calls to gateways -----------------------------------------------------------------------

    def call(self, make: Callable[[int], Call], gateway: str = "gateway-1") -> int:
        """Make a call to a gateway; the token names its answer."""
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
        self.schedule.after_us(0, self._lose_call, token)

    def _lose_call(self, token: int) -> None:
        self.answered(token, NODE_DIED)

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
            answer = self.answers.pop(token, NODE_DIED)
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
