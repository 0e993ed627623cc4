"""A plugin of pytest: all journals that a test opens are encrypted.

pytest -p tests.broker.sealed_journals tests/broker/test_journal.py
"""

import functools
import secrets
from typing import Any

from broker.journal import Journal
from broker.keys import KEY_BYTES, KeyRing

KEYS = KeyRing([secrets.token_bytes(KEY_BYTES)], "the tests")


def pytest_configure() -> None:
    """Give every opening a key."""
    plain = Journal.open.__func__  # type: ignore[attr-defined]

    @functools.wraps(plain)
    def sealed(*arguments: Any, **named: Any) -> Any:
        return plain(*arguments, **{"keys": KEYS, "encrypted": True} | named)

    Journal.open = classmethod(sealed)  # type: ignore[method-assign, assignment]
