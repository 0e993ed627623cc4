"""A batch as text: what acceptors vote for, journal and report without reading it (decision 33)."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from actors.frozen import Frozen
from actors.paging import BATCH_BYTES_MAX

UNREAD_BYTES_MAX = BATCH_BYTES_MAX + 1024
"""A batch of `BATCH_BYTES_MAX` with what is around its commands. Reported in base64, a text of this
size still fits into a message.
"""

HEAD = b'{"kind":"batch",'
"""How the text of every batch begins."""


class _Head(BaseModel):
    """All that is read of the text: the rest is only checked for being JSON."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["batch"]
    rules: Any = None
    """A batch that an earlier version than its own can't read names its rules (decision 24)."""


_HEAD = TypeAdapter(_Head)


def is_of_later_version(text: bytes) -> bool:
    """Whether the text is that of a batch whose rules this version does not know."""
    try:
        return _HEAD.validate_json(text).rules is not None
    except ValidationError:
        return False


def _is_one_object(text: bytes) -> bytes:
    """Within a row or a message the text must end where it seems to end."""
    if not text.startswith(HEAD):
        raise ValueError("the text does not begin as that of a batch")
    if _HEAD.validate_json(text).rules is not None:
        raise ValueError("rules: this version does not know the batch's")
    return text


class UnreadBatch(Frozen):
    """What came in the place of a batch: one JSON object of that kind, and nothing else is known.

    In messages it is base64, and only where it is no batch to its sender; see `Holder` for the
    proposal of one, and for rows.
    """

    kind: Literal["unread"] = "unread"
    text: Annotated[bytes, Field(max_length=UNREAD_BYTES_MAX), AfterValidator(_is_one_object)]

    @property
    def json_text(self) -> bytes:
        """The text itself."""
        return self.text

    def to_json(self) -> bytes:
        """See `Frozen.to_json`."""
        return self.text

    @classmethod
    def of(cls, text: bytes) -> "UnreadBatch":
        """The text of a batch, or one that was checked before: it is not checked again."""
        return cls.model_construct(text=text)
