"""Failpoints: stop a node exactly there, at the border of its runtime, where no actor knows of it.

A rule is written `WHEN:TYPE:N:before|after:ACTION`, such as `send:txn.vote:1:after:kill`.

- WHEN and TYPE: the node sends, or receives, a message of this type (the AMQP property `type`).
  `log.propose.abort` is one that carries an Abort, and so on for all messages with a value.
  `txn.prepare@store-2` is one that is sent to this node: while such a rule waits, what is said to a
  group leaves for its members one by one, in the order of their names, so that a node can be
  stopped when some of them have it and others have not.
- N: only at the N-th one, counted from 1 by each rule for itself, over the life of the process.
  What a turn sends to a group counts once, but for a rule that names a member; what is delivered
  again counts again.
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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel

from actors.messages import AnyMessage, Message
from broker.observer import Interceptor
from broker.transport import groups_of

log = logging.getLogger("synod.failpoints")

When = Literal["send", "receive"]
Moment = Literal["before", "after"]
Action = Literal["kill", "pause", "error"]


def _types() -> Iterator[str]:
    for member in typing.get_args(typing.get_args(Message)[0]):
        kind: str = member.model_fields["type"].default
        yield kind
        if value := member.model_fields.get("value"):
            yield from (f"{kind}.{what}" for what in _value_kinds(value.annotation))


def _value_kinds(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation.model_fields["kind"].default
    for part in typing.get_args(annotation):
        yield from _value_kinds(part)


MESSAGE_TYPES: tuple[str, ...] = tuple(sorted(_types()))
"""Every type that crosses the broker, and those with a value once more by its kind."""

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
    to: str = ""
    """Only what is sent to this node; empty: to anybody."""

    def __str__(self) -> str:
        kind = f"{self.type}@{self.to}" if self.to else self.type
        return f"{self.when}:{kind}:{self.number}:{self.moment}:{self.action}"

    @classmethod
    def parse(cls, text: str) -> "Failpoint":
        """Read a rule. Raises `BadFailpoint`."""
        parts = text.split(":")
        if len(parts) != 5:
            raise BadFailpoint(f"{text!r} is not {_FORM}")
        when, addressed, number, moment, action = parts
        kind, at, to = addressed.partition("@")
        if when not in typing.get_args(When):
            raise BadFailpoint(f"{text!r} begins with {when!r}, neither send nor receive")
        if kind not in MESSAGE_TYPES:
            raise BadFailpoint(f"{text!r} names the unknown type {kind!r}; {_similar_types(kind)}")
        if at and (when != "send" or not to):
            raise BadFailpoint(f"{text!r}: only what is sent is for one node, such as @store-2")
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
            to,
        )


def _similar_types(kind: str) -> str:
    near = difflib.get_close_matches(kind, MESSAGE_TYPES, n=4, cutoff=0.4)
    family = [known for known in MESSAGE_TYPES if known.startswith(f"{kind.partition('.')[0]}.")]
    if found := list(dict.fromkeys((*near, *family))):
        return f"near it are {', '.join(found)}"
    return f"there are {', '.join(MESSAGE_TYPES)}"


class Stopper(Protocol):
    """How a node is stopped."""

    async def kill(self) -> None:
        """End it at once; does not return."""

    async def pause(self) -> None:
        """Hold it; returns when it may go on."""


class ProcessStopper:
    """Stops the node by stopping this process."""

    async def kill(self) -> None:
        """See `Stopper`."""
        os.kill(os.getpid(), signal.SIGKILL)

    async def pause(self) -> None:
        """See `Stopper`."""
        os.kill(os.getpid(), signal.SIGSTOP)


class TaskStopper:
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
        """See `Stopper`."""
        assert self._task is not None, "watch was not called"
        self._task.cancel()
        await asyncio.Event().wait()  # Until the cancellation comes.

    async def pause(self) -> None:
        """See `Stopper`."""
        self._resumed.clear()
        self.paused.set()
        await self._resumed.wait()
        self.paused.clear()


@dataclass(slots=True)
class _PendingRule:
    rule: Failpoint
    left: int


class Failpoints(Interceptor):
    """The rules of one node. With `armed=False` they count from `arm` on.

    `members` are those of the whole cluster, for rules that name one: raises `BadFailpoint` if a
    rule names somebody else.
    """

    def __init__(
        self,
        rules: Iterable[Failpoint],
        stopper: Stopper | None = None,
        *,
        members: Sequence[str] = (),
        armed: bool = True,
    ) -> None:
        self._pending = [_PendingRule(rule, rule.number) for rule in rules]
        self._members = members
        for rule in self.rules:
            if rule.to and rule.to not in members:
                raise BadFailpoint(f"{rule}: {rule.to} is none of {', '.join(members)}")
        self._stopper = stopper or ProcessStopper()
        self._armed = armed

    def arm(self) -> None:
        """Begin to count."""
        if not self._armed:
            log.warning("failpoints count from now on: %s", ", ".join(map(str, self.rules)))
        self._armed = True

    @property
    def rules(self) -> list[Failpoint]:
        """Those that have not struck yet."""
        return [pending.rule for pending in self._pending]

    @property
    def idle(self) -> bool:
        """Whether no rule can strike at present."""
        return not self._armed or not self._pending

    def recipients(self, to: str, message: AnyMessage) -> Sequence[str]:
        """See `Interceptor`."""
        kinds = _kinds_of(message)
        members = [name for name in self._members if to in groups_of(name)]
        if self._armed and any(rule.type in kinds and rule.to in members for rule in self.rules):
            return members
        return (to,)

    async def receiving(self, message: AnyMessage) -> None:
        """See `Interceptor`."""
        await self._check("receive", "before", "", message)

    async def received(self, message: AnyMessage) -> None:
        """See `Interceptor`."""
        await self._check("receive", "after", "", message)

    async def sending(self, to: str, message: AnyMessage) -> None:
        """See `Interceptor`."""
        await self._check("send", "before", to, message)

    async def sent(self, to: str, message: AnyMessage) -> None:
        """See `Interceptor`."""
        await self._check("send", "after", to, message)

    async def _check(self, when: When, moment: Moment, to: str, message: AnyMessage) -> None:
        if not self._armed:
            return
        kinds = _kinds_of(message)
        due: list[_PendingRule] = []
        for pending in self._pending:
            rule = pending.rule
            if (
                rule.type in kinds
                and (rule.when, rule.moment) == (when, moment)
                and rule.to in ("", to)
            ):
                pending.left -= 1
                if pending.left == 0:
                    due.append(pending)
        for pending in due:
            self._pending.remove(pending)
        for pending in due:
            # The last words of a process that kills itself: they must be out before it does.
            slot = _slot_of(message)
            where = "" if slot is None else f" at slot {slot}"
            log.warning("failpoint %s strikes%s", pending.rule, where)
            if pending.rule.action == "kill":
                await self._stopper.kill()
            elif pending.rule.action == "pause":
                await self._stopper.pause()
            else:
                raise InjectedError(f"failpoint {pending.rule}")


def _kinds_of(message: AnyMessage) -> tuple[str, ...]:
    """A message's type, and with its value's kind if it has a value."""
    kind = getattr(message, "type", "")
    value = getattr(message, "value", None)
    return (kind,) if value is None else (kind, f"{kind}.{getattr(value, 'kind', '')}")


def _slot_of(message: AnyMessage) -> int | None:
    """The slot that a message, or the Abort or the outcome in it, is about."""
    parts = (message, getattr(message, "value", None), getattr(message, "outcome", None))
    slots = (getattr(part, "slot", None) for part in parts)
    return next((slot for slot in slots if slot is not None), None)
