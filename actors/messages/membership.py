"""Changes of the acceptors, asked for by a gateway (docs/decisions/0026-membership.md)."""

from typing import Literal

from pydantic import Field

from actors.numbers import Count
from actors.values import OWNER_CHARS_MAX, Frozen


class ReplaceAcceptor(Frozen):
    """A gateway asks the leader to replace the disk of an acceptor by the one that now runs under
    its name.

    `version` is that of the acceptors as the gateway knows them: a request that comes twice, or
    late, must not change later ones. `principal` is the owner of the principal that asked for it;
    none: the administrator.
    """

    type: Literal["members.replace"] = "members.replace"
    number: Count
    name: str
    version: Count
    principal: str | None = Field(None, max_length=OWNER_CHARS_MAX)


class ReplaceAnswer(Frozen):
    """The leader has proposed the change to `version`, or refuses for the reason in `refused`; if
    `again`, what is missing comes by itself.

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
