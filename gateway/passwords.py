"""Passwords: Argon2id hashes, made and checked in threads of their own, few at a time.

A hash takes 64 MiB and a good part of a core on purpose, so that guessing from stolen hashes is
slow. Without a bound, logins that anybody may try would take all memory and processors.
"""

import asyncio
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from gateway.http.problems import TOO_MANY_REQUESTS, Problem

AT_ONCE = 2
"""Hashes that are computed at a time, of 64 MiB each."""

WAITING_MAX = 16
"""Those that may wait for it: a few seconds' worth."""

_T = TypeVar("_T")


class Passwords:
    """Hashes and checks passwords."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """`hasher` has the parameters of new hashes; hashes that exist keep theirs."""
        self._hasher = hasher or PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._threads: ThreadPoolExecutor | None = None
        self._under_way = 0
        self._lock = threading.Lock()

    async def hash(self, password: str) -> str:
        """The hash for the log, with a new salt. Raises `Problem`."""
        return await self._run(lambda: self._hasher.hash(_prepared(password)))

    async def fits(self, hashed: str, password: str) -> bool:
        """Whether the password is the one of the hash; always false for the empty hash of a user
        that does not exist or has no password, after as much work. Raises `Problem`.
        """
        return await self._run(lambda: self._fits(hashed, password))

    def _fits(self, hashed: str, password: str) -> bool:
        if not hashed:
            self._hasher.hash(_prepared(password))
            return False
        try:
            return self._hasher.verify(hashed, _prepared(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], _T]) -> _T:
        with self._lock:
            if self._under_way >= AT_ONCE + WAITING_MAX:
                raise Problem(
                    TOO_MANY_REQUESTS,
                    f"{self._under_way} passwords are being checked",
                    headers={"retry-after": "2"},
                )
            self._under_way += 1
            if self._threads is None:
                self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")
        future = self._threads.submit(self._count, work)
        # A client that has gone away does not make room: its hash is computed to the end.
        return await asyncio.shield(asyncio.wrap_future(future))

    def _count(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        finally:
            with self._lock:
                self._under_way -= 1


def _prepared(password: str) -> bytes:
    """The same bytes for the same characters, however a keyboard composes them (RFC 8265, 4.2)."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
