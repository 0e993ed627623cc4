"""The base of all values that cross a border: messages, commands, rows of journals."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value that crosses a border; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
    )

    def to_json(self) -> bytes:
        """The value as JSON, for a journal row."""
        return self.__pydantic_serializer__.to_json(self)


def is_none(value: object) -> bool:
    """For fields that are written only if they are set."""
    return value is None


def is_empty(value: object) -> bool:
    """For fields that are written only if they hold something."""
    return not value
