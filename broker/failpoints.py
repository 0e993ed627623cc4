"""Failpoints: stop a node exactly there, at the border of its runtime, where no actor knows of it.

A rule is written `WHEN:TYPE:N:before|after:ACTION`, such as `send:txn.vote:1:after:kill`.

- WHEN and TYPE: the node sends, or receives, a message of this type (the AMQP property `type`).
- N: only at the N-th one, counted from 1 by each rule for itself, over the life of the process.
  What a turn sends to a group counts once; what is delivered again counts again.
- `send … before`: its turn is durable, and the message has not left. `send … after`: it has left,
  and nothing that the turn sends later has. `receive … before`: the actor has not seen it, and the
  broker has not been told that it came. `receive … after`: the actor has taken it in, and nothing
  that comes of it is durable.
- ACTION: `kill` (SIGKILL to the own process), `pause` (SIGSTOP; it goes on after SIGCONT), or
  `error` (the actor's step raises; only when it receives).

A node with failpoints sends one message at a time while they can strike, so it is slower then.
They may begin to count later, with `arm`: then a cluster can be founded and put under load before.
"""

import asyncio
import difflib
import logging
import os
import signal
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from actors.messages import AnyMessage, Message
from broker.observer import Tap

log = logging.getLogger("synod.failpoints")

When = Literal["send", "receive"]
Moment = Literal["before", "after"]
Action = Literal["kill", "pause", "error"]

MESSAGE_TYPES: tuple[str, ...] = tuple(
    sorted(
        member.model_fields["type"].default
        for member in typing.get_args(typing.get_args(Message)[0])
    )
)
"""Every type that crosses the broker."""

_FORM = "WHEN:TYPE:N:before|after:ACTION, such as send:txn.vote:1:after:kill"


class BadFailpoint(ValueError):
    """A rule that can't be meant; the text says what is wrong with it."""


class InjectedError(RuntimeError):
    """What `error` raises."""


class Failpoint(NamedTuple):
    """One rule."""

    when: When
    type: str
    number: int
    moment: Moment
    action: Action

    def __str__(self) -> str:
        return ":".join(str(part) for part in self)

    @classmethod
    def parse(cls, text: str) -> "Failpoint":
        """Read a rule. Raises `BadFailpoint`."""
        parts = text.split(":")
        if len(parts) != 5:
            raise BadFailpoint(f"{text!r} is not {_FORM}")
        when, kind, number, moment, action = parts
        if when not in typing.get_args(When):
            raise BadFailpoint(f"{text!r} begins with {when!r}, neither send nor receive")
        if kind not in MESSAGE_TYPES:
            raise BadFailpoint(f"{text!r} names the unknown type {kind!r}; {_near(kind)}")
        if not number.isascii() or not number.isdecimal() or int(number) < 1:
            raise BadFailpoint(f"{text!r} counts to {number!r}; the first message is number 1")
        if moment not in typing.get_args(Moment):
            raise BadFailpoint(f"{text!r} strikes {moment!r}, neither before nor after")
        if action not in typing.get_args(Action):
            raise BadFailpoint(f"{text!r} does {action!r}, none of kill, pause and error")
        if (when, action) == ("send", "error"):
            raise BadFailpoint(f"{text!r}: only what is received can end in an error")
        return cls(
            typing.cast(When, when),
            kind,
            int(number),
            typing.cast(Moment, moment),
            typing.cast(Action, action),
        )


def _near(kind: str) -> str:
    near = difflib.get_close_matches(kind, MESSAGE_TYPES, n=4, cutoff=0.4)
    family = [known for known in MESSAGE_TYPES if known.startswith(f"{kind.partition('.')[0]}.")]
    if found := list(dict.fromkeys((*near, *family))):
        return f"near it are {', '.join(found)}"
    return f"there are {', '.join(MESSAGE_TYPES)}"


class Strike(Protocol):
    """How a node is stopped."""

    async def kill(self) -> None:
        """End it at once; does not return."""

    async def pause(self) -> None:
        """Hold it; returns when it may go on."""


class StrikeProcess:
    """Stops the node by stopping this process."""

    async def kill(self) -> None:
        """See `Strike`."""
        os.kill(os.getpid(), signal.SIGKILL)

    async def pause(self) -> None:
        """See `Strike`."""
        os.kill(os.getpid(), signal.SIGSTOP)


class StrikeTask:
    """Stops one of several nodes in this process. Its connection stays, as a paused one's would."""

    def __init__(self) -> None:
        self.paused = asyncio.Event()
        """Set while the node is held."""
        self._task: asyncio.Task[None] | None = None
        self._resumed = asyncio.Event()

    def watch(self, task: asyncio.Task[None]) -> None:
        """Say which task runs the node; `kill` cancels it."""
        self._task = task

    def resume(self) -> None:
        """Let the held node go on."""
        self._resumed.set()

    async def kill(self) -> None:
        """See `Strike`."""
        assert self._task is not None, "watch was not called"
        self._task.cancel()
        await asyncio.Event().wait()  # Until the cancellation comes.

    async def pause(self) -> None:
        """See `Strike`."""
        self._resumed.clear()
        self.paused.set()
        await self._resumed.wait()
        self.paused.clear()


@dataclass(slots=True)
class _Counter:
    rule: Failpoint
    left: int


class Failpoints(Tap):
    """The rules of one node. With `armed=False` they count from `arm` on."""

    def __init__(
        self,
        rules: Iterable[Failpoint],
        strike: Strike | None = None,
        *,
        armed: bool = True,
    ) -> None:
        self._counters = [_Counter(rule, rule.number) for rule in rules]
        self._strike = strike or StrikeProcess()
        self._armed = armed

    def arm(self) -> None:
        """Begin to count."""
        if not self._armed:
            log.warning("failpoints count from now on: %s", ", ".join(map(str, self.rules)))
        self._armed = True

    @property
    def rules(self) -> list[Failpoint]:
        """Those that have not struck yet."""
        return [counter.rule for counter in self._counters]

    @property
    def asleep(self) -> bool:
        """Whether no rule can strike at present."""
        return not self._armed or not self._counters

    async def receiving(self, message: AnyMessage) -> None:
        """See `Tap`."""
        await self._pass("receive", "before", message)

    async def received(self, message: AnyMessage) -> None:
        """See `Tap`."""
        await self._pass("receive", "after", message)

    async def sending(self, to: str, message: AnyMessage) -> None:
        """See `Tap`."""
        await self._pass("send", "before", message)

    async def sent(self, to: str, message: AnyMessage) -> None:
        """See `Tap`."""
        await self._pass("send", "after", message)

    async def _pass(self, when: When, moment: Moment, message: AnyMessage) -> None:
        if not self._armed:
            return
        kind = getattr(message, "type", "")
        due: list[_Counter] = []
        for counter in self._counters:
            rule = counter.rule
            if rule.type == kind and rule.when == when and rule.moment == moment:
                counter.left -= 1
                if counter.left == 0:
                    due.append(counter)
        for counter in due:
            self._counters.remove(counter)
        for counter in due:
            # The last words of a process that kills itself: they must be out before it does.
            slot = getattr(message, "slot", None)
            where = "" if slot is None else f" at slot {slot}"
            log.warning("failpoint %s strikes%s", counter.rule, where)
            if counter.rule.action == "kill":
                await self._strike.kill()
            elif counter.rule.action == "pause":
                await self._strike.pause()
            else:
                raise InjectedError(f"failpoint {counter.rule}")
