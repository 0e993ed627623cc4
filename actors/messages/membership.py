"""Changes of the members, asked for by a gateway (docs/decisions/0026-membership.md)."""

from typing import Literal

from pydantic import Field

from actors.numbers import Count
from actors.values import OWNER_CHARS_MAX, Frozen

Action = Literal["replace", "add", "remove"]
"""`replace`: another disk under a member's name, the one that a process under it runs on now."""


class ChangeMember(Frozen):
    """A gateway asks the leader to replace, to add or to remove a member.

    `version` is that of the acceptors, or for other roles of the roster, as the gateway knows it: a
    request that comes twice, or late, must not change later ones. `principal` is the owner of the
    principal that asked for it; none: the administrator.
    """

    type: Literal["members.change"] = "members.change"
    number: Count
    action: Action
    name: str
    version: Count
    principal: str | None = Field(None, max_length=OWNER_CHARS_MAX)


class ChangeAnswer(Frozen):
    """The leader has proposed the change to `version`, or refuses for the reason in `refused`; if
    `again`, what is missing comes by itself. A store, a learner or a proposer on another disk needs
    no change of the log: then `version` is the present one.

    That it was proposed is no promise: learners report what was chosen.
    """

    type: Literal["members.answer"] = "members.answer"
    number: Count
    version: Count = 0
    refused: str = ""
    again: bool = False


class Superseded(Frozen):
    """The receiver's disk is no acceptor since version `version`: another one has its name."""

    type: Literal["members.superseded"] = "members.superseded"
    disk: str
    version: Count
