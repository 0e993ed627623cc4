"""The bodies of requests about API tokens."""

from typing import Annotated

from pydantic import Field, model_validator

from actors.numbers import COUNT_MAX
from actors.principals import GROUPS_MAX, NAME_CHARS_MAX
from actors.state.rights import OF_THE_CLUSTER
from actors.values import GRANTS_MAX, TOKEN_LABEL_CHARS_MAX, Grant, Role
from gateway.http.problems import INVALID_PATH, INVALID_REQUEST, Problem
from gateway.http.transactions import Strict
from synod.paths import InvalidPath, checked_path


class GrantBody(Strict):
    """A role on a path and all below it; the empty path is the root."""

    role: Role
    path: str = ""

    def grant(self) -> Grant:
        """The grant for the log. Raises `Problem`."""
        if self.path and self.role in OF_THE_CLUSTER:
            raise Problem(INVALID_REQUEST, f"the role {self.role!r} is of the whole cluster")
        try:
            return Grant(role=self.role, path=checked_path(self.path))
        except InvalidPath as error:
            raise Problem(INVALID_PATH, f"{error}") from None


class NewTokenBody(Strict):
    """The body that makes a token."""

    label: str = Field("", max_length=TOKEN_LABEL_CHARS_MAX)
    grants: list[GrantBody] = Field([], max_length=GRANTS_MAX)
    expires_after_ms: int | None = Field(None, ge=1, le=COUNT_MAX // 2)
    groups: list[Annotated[str, Field(max_length=NAME_CHARS_MAX)]] = Field(
        [], max_length=GROUPS_MAX
    )

    @model_validator(mode="after")
    def _opens_something(self) -> "NewTokenBody":
        if not self.grants and not self.groups:
            raise ValueError("a token needs a grant or a group at least")
        return self
