"""Client library of Synod, a replicated file system: `Client` and, for asyncio, `AsyncClient`.

It imports httpx and the standard library only. The server imports its rules for names, metadata,
tags and headers from here, so a client checks before it sends what a gateway checks.
"""

from typing import TYPE_CHECKING, Any

from synod.entries import Change, Entry, Written
from synod.errors import (
    Conflict,
    Damaged,
    DiskFull,
    Forbidden,
    InvalidRequest,
    Misconfigured,
    NotFound,
    NotSent,
    OutcomeUnknown,
    PreconditionFailed,
    ServerFailure,
    SourceChanged,
    StillRunning,
    SynodError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from synod.paths import InvalidPath

if TYPE_CHECKING:
    from synod.client import AsyncClient, Body, Client, OnBytes, Source

__all__ = [
    "AsyncClient",
    "Body",
    "Change",
    "Client",
    "Conflict",
    "Damaged",
    "DiskFull",
    "Entry",
    "Forbidden",
    "InvalidPath",
    "InvalidRequest",
    "Misconfigured",
    "NotFound",
    "NotSent",
    "OnBytes",
    "OutcomeUnknown",
    "PreconditionFailed",
    "ServerFailure",
    "Source",
    "SourceChanged",
    "StillRunning",
    "SynodError",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "Written",
]

_OF_CLIENT = frozenset({"AsyncClient", "Body", "Client", "OnBytes", "Source"})

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load the client on first use: a node that imports the rules starts without httpx."""
        if name not in _OF_CLIENT:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from synod import client

        return getattr(client, name)
