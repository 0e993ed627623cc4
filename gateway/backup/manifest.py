"""The manifest of a backup: what the backup holds, who signed it, and which key opens it."""

import hashlib
import json
import re
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from actors.values import Frozen

ROWS_NAME = re.compile(r"rows(-[0-9]+-[0-9a-f]{12})?\.jsonl")

_HEX = r"^(?:[0-9a-f]{2})+$"


class Signature(Frozen):
    """An Ed25519 signature of `Manifest.statement`; key and value are in hexadecimal."""

    algorithm: Literal["ed25519"]
    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    value: str = Field(pattern=r"^[0-9a-f]{128}$")


class Sealed(Frozen):
    """That a backup is encrypted, and its data key, wrapped. All in hexadecimal."""

    data_key: str = Field(pattern=r"^[0-9a-f]{16}$")
    """The public name of the data key; a part of the statement, unlike what follows."""
    mac: str = Field(pattern=r"^[0-9a-f]{64}$")
    """A MAC of the statement by the data key: without it nobody can change what it says."""
    wrapped_by: str = Field(pattern=r"^[0-9a-f]{16}$")
    salt: str = Field(pattern=_HEX, max_length=128)
    wrapped: str = Field(pattern=_HEX, max_length=256)


class Manifest(Frozen):
    """A backup's manifest. Sizes are bytes; `settings` are those of the cluster it came from.

    Format 2 is signed, encrypted or both; without either a backup has format 1, which former
    releases read.
    """

    format: Literal["synod-backup-1", "synod-backup-2"] = "synod-backup-1"
    cluster: str
    taken_at: str
    """The time when it was taken, by the local wall clock, ISO 8601 in UTC."""
    slot: int
    state_hash: str
    rows_file: str = Field(pattern=rf"^{ROWS_NAME.pattern}$")
    rows: int
    rows_bytes: int
    rows_sha256: str
    files: int
    files_bytes: int
    chunks: int
    chunks_bytes: int
    settings: dict[str, int]
    sealed: Sealed | None = None
    signature: Signature | None = None

    @model_validator(mode="after")
    def _of_its_format(self) -> Self:
        if (self.format == "synod-backup-1") != (self.sealed is None and self.signature is None):
            raise ValueError("its format does not fit its signature and encryption")
        return self

    def statement(self) -> bytes:
        """All that it says about the backup, in one certain form: what is signed. The key that
        wraps the data key may change, so it is no part of it.
        """
        body = self.model_dump(mode="json", exclude={"sealed", "signature"})
        body["data_key"] = None if self.sealed is None else self.sealed.data_key
        return _canonical({**body, "format": "synod-backup-2"})

    def dump(self) -> bytes:
        """The file's contents, with the manifest's own checksum."""
        body = self.model_dump(mode="json", exclude_none=True)
        return json.dumps({**body, "checksum": _checksum(body)}, indent=2).encode() + b"\n"

    @classmethod
    def load(cls, raw: bytes) -> Self:
        """Parse and check a manifest. Raises `ValueError` with the reason."""
        try:
            body = json.loads(raw)
            checksum = body.pop("checksum")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise ValueError("it can't be read") from None
        if checksum != _checksum(body):
            raise ValueError("it does not match its own checksum")
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise ValueError(f"this Synod can't read it: {error.errors()[0]['msg']}") from None


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()
