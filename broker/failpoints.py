"""Failpoints: stop a node at an exact message, in its runtime, without its actor's knowledge.

A rule is written `WHEN:TYPE:N:before|after:ACTION`, such as `send:txn.vote:1:after:kill`.

- WHEN and TYPE: the node sends, or receives, a message of this type (the AMQP property `type`).
  `log.propose.abort` is one that carries an Abort, and so on for all messages with a value.
  `txn.prepare@store-2` is one that is sent to this node. While such a rule is pending, messages to
  a group are sent to its members one by one, in the order of their names, so that a node can be
  stopped when some members have the message and others do not.
- N: the N-th such message, counted from 1 by each rule for itself, over the life of the process.
  A message to a group counts once, except for a rule that names a member; a redelivery counts
  again.
- `send … before`: the turn is durable, and the message has not been sent. `send … after`: it has
  been sent, and no later message of the turn has. `receive … before`: the actor has not processed
  the message, and it is not acknowledged. `receive … after`: the actor has processed it, and none
  of its effects is durable.
- ACTION: `kill` (SIGKILL to the own process), `pause` (SIGSTOP until SIGCONT), or `error` (the
  actor's step raises; only for received messages).

While a failpoint is pending, the node sends one message at a time, so it is slower. With `arm` the
count begins later, so that a cluster can be founded and put under load first.
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
BeforeOrAfter = Literal["before", "after"]
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
"""Every message type on the broker; types with a value also with each kind of value."""

_FORM = "WHEN:TYPE:N:before|after:ACTION, such as send:txn.vote:1:after:kill"


class BadFailpoint(ValueError):
    """An invalid rule; the text says what is wrong with it."""


class InjectedError(RuntimeError):
    """Raised by the action `error`."""


class Failpoint(NamedTuple):
    """One rule."""

    when: When
    type: str
    number: int
    moment: BeforeOrAfter
    action: Action
    to: str = ""
    """The node that the message must be sent to; empty: any."""

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
            raise BadFailpoint(f"{text!r}: only `send` may name a node, such as @store-2")
        if not number.isascii() or not number.isdecimal() or int(number) < 1:
            raise BadFailpoint(f"{text!r} has the number {number!r}; the first message is 1")
        if moment not in typing.get_args(BeforeOrAfter):
            raise BadFailpoint(f"{text!r} has the moment {moment!r}, neither before nor after")
        if action not in typing.get_args(Action):
            raise BadFailpoint(f"{text!r} has the action {action!r}: use kill, pause or error")
        if (when, action) == ("send", "error"):
            raise BadFailpoint(f"{text!r}: only `receive` can have the action error")
        return cls(
            typing.cast(When, when),
            kind,
            int(number),
            typing.cast(BeforeOrAfter, moment),
            typing.cast(Action, action),
            to,
        )


def _similar_types(kind: str) -> str:
    near = difflib.get_close_matches(kind, MESSAGE_TYPES, n=4, cutoff=0.4)
    family = [known for known in MESSAGE_TYPES if known.startswith(f"{kind.partition('.')[0]}.")]
    if found := list(dict.fromkeys((*near, *family))):
        return f"similar types are {', '.join(found)}"
    return f"the types are {', '.join(MESSAGE_TYPES)}"


class Stopper(Protocol):
    """Stops a node."""

    async def kill(self) -> None:
        """End the node at once; does not return."""

    async def pause(self) -> None:
        """Suspend the node; returns when it is resumed."""


class ProcessStopper:
    """Stops the node by stopping this process."""

    async def kill(self) -> None:
        """See `Stopper`."""
        os.kill(os.getpid(), signal.SIGKILL)

    async def pause(self) -> None:
        """See `Stopper`."""
        os.kill(os.getpid(), signal.SIGSTOP)


class TaskStopper:
    """Stops one of several nodes in this process; a paused node's connection stays open."""

    def __init__(self) -> None:
        self.paused = asyncio.Event()
        """Set while the node is paused."""
        self._task: asyncio.Task[None] | None = None
        self._resumed = asyncio.Event()

    def watch(self, task: asyncio.Task[None]) -> None:
        """Set the task that runs the node; `kill` cancels it."""
        self._task = task

    def resume(self) -> None:
        """Resume the paused node."""
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

    `members` are those of the whole cluster. Raises `BadFailpoint` if a rule names another node.
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
        """The rules that have not triggered yet."""
        return [pending.rule for pending in self._pending]

    @property
    def idle(self) -> bool:
        """Whether no rule can trigger at present."""
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

    async def _check(self, when: When, moment: BeforeOrAfter, to: str, message: AnyMessage) -> None:
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
            # Logged first: the process may kill itself.
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
    """A message's type, and if it has a value, also the type with the value's kind."""
    kind = getattr(message, "type", "")
    value = getattr(message, "value", None)
    return (kind,) if value is None else (kind, f"{kind}.{getattr(value, 'kind', '')}")


def _slot_of(message: AnyMessage) -> int | None:
    """The slot that a message, or the Abort or the outcome in it, is about."""
    parts = (message, getattr(message, "value", None), getattr(message, "outcome", None))
    slots = (getattr(part, "slot", None) for part in parts)
    return next((slot for slot in slots if slot is not None), None)
