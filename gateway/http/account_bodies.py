"""The bodies of requests about users, groups and logins."""

from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from actors.principals import (
    GRANTS_MAX,
    GROUPS_MAX,
    NAME,
    NAME_CHARS_MAX,
    TOKEN_LABEL_CHARS_MAX,
)
from gateway.http.token_bodies import GrantBody
from gateway.http.transactions import Strict

PASSWORD_CHARS_MIN = 12
"""After NIST SP 800-63B, which asks for length and for no kinds of characters."""

PASSWORD_CHARS_MAX = 512

Name = Annotated[str, Field(max_length=NAME_CHARS_MAX, pattern=NAME)]
NewPassword = Annotated[
    str,
    Field(
        min_length=PASSWORD_CHARS_MIN,
        max_length=PASSWORD_CHARS_MAX,
        json_schema_extra={"format": "password"},
    ),
]
Grants = Annotated[list[GrantBody], Field(max_length=GRANTS_MAX)]
Groups = Annotated[list[Name], Field(max_length=GROUPS_MAX)]


class Login(BaseModel):
    """The body of a login: a user with its password, or a token; a form has the same fields."""

    user: str | None = Field(None, max_length=NAME_CHARS_MAX)
    password: str | None = Field(
        None, max_length=PASSWORD_CHARS_MAX, json_schema_extra={"format": "password"}
    )
    token: str | None = None
    label: str = Field("", max_length=TOKEN_LABEL_CHARS_MAX)
    """What the session is, for who lists them."""
    bearer: bool = False
    """Answer with the session, to be sent as `Authorization: Bearer`, instead of a cookie."""

    @model_validator(mode="after")
    def _names_one(self) -> "Login":
        by_password = self.user is not None and self.password is not None
        if by_password == (self.token is not None) or (self.user is None) != (
            self.password is None
        ):
            raise ValueError("give a user and a password, or a token")
        return self


class NewUserBody(Strict):
    """The body that makes a user. Without a password it can't log in."""

    name: Name
    password: NewPassword | None = None
    grants: Grants = Field(default_factory=list)
    groups: Groups = Field(default_factory=list)


class UserChangeBody(Strict):
    """What to change: own grants, and groups."""

    grant: Grants = Field(default_factory=list)
    revoke: Grants = Field(default_factory=list)
    join: Groups = Field(default_factory=list)
    leave: Groups = Field(default_factory=list)


class PasswordBody(Strict):
    """A new password. `current` is the former one, for a user that sets its own."""

    password: NewPassword
    current: str | None = Field(None, max_length=PASSWORD_CHARS_MAX)


class NewGroupBody(Strict):
    """The body that makes a group."""

    name: Name
    grants: Grants = Field(default_factory=list)


class GroupChangeBody(Strict):
    """What to change."""

    grant: Grants = Field(default_factory=list)
    revoke: Grants = Field(default_factory=list)
