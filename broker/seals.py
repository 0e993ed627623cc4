"""A seal on each message by a key of the cluster, so that the broker can't make or change one.

The seal is an HMAC (RFC 2104) with SHA-256 over what a receiver acts on: the address, the
properties that nodes set, and the body. All nodes have the key; who of them has sent a message is
the broker's word (`broker.senders`). The broker, or whoever controls it, can still read, drop,
delay and repeat messages; the protocol survives all of that, but the reading.
"""

import hmac
from collections.abc import Mapping
from pathlib import Path

from broker.amqp_frames import HeaderValue, Properties
from broker.codec import TIMER

SEAL = "seal"
"""The header with the seal, in hexadecimal digits."""

KEY_CHARS_MIN = 32

_ADDED_BY_BROKER = "x-"
"""The beginning of the names of headers that RabbitMQ adds; no node reads their values."""


class BadKey(ValueError):
    """The file holds no key; the text says why."""


class NotSealed(ValueError):
    """No node of this cluster made the message as it is; the text says what is wrong."""


def read_key(file: Path) -> bytes:
    """The key in the file, without blanks around it. Raises `BadKey` or `OSError`."""
    key = file.read_bytes().strip()
    if len(key) < KEY_CHARS_MIN:
        raise BadKey(
            f"{file} must hold a random key of {KEY_CHARS_MIN} characters or more, such as "
            "`openssl rand -hex 32` prints"
        )
    return key


class Seals:
    """Makes and checks seals with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sealed(
        self, exchange: str, routing_key: str, properties: Properties, body: bytes
    ) -> Properties:
        """The properties with the seal of the message."""
        seal = self._seal(exchange, routing_key, properties, body)
        return properties._replace(headers={**properties.headers, SEAL: seal})

    def require(self, exchange: str, routing_key: str, properties: Properties, body: bytes) -> None:
        """Raise `NotSealed` unless the message has its seal."""
        seal = properties.headers.get(SEAL)
        if not isinstance(seal, str):
            raise NotSealed(f"it has no seal of this cluster ({properties.app_id[:64]!r})")
        expected = self._seal(exchange, routing_key, properties, body)
        if not hmac.compare_digest(seal.encode(), expected.encode()):
            raise NotSealed(
                f"its seal is of another key, or it was changed ({properties.app_id[:64]!r})"
            )

    def _seal(self, exchange: str, routing_key: str, properties: Properties, body: bytes) -> str:
        # An expiry changes the address; a timer is for its sender in any case.
        address = ("", "") if properties.type == TIMER else (exchange, routing_key)
        fields = (
            *address,
            properties.type,
            properties.app_id,
            properties.message_id,
            str(properties.timestamp_s),
            properties.content_type,
            properties.correlation_id,
            *_headers_of(properties.headers),
        )
        # With its length before each, no two lists of fields are the same bytes.
        parts = [b"%d:%b" % (len(raw), raw) for raw in map(str.encode, fields)]
        return hmac.digest(self._key, b"%b;%b" % (b"".join(parts), body), "sha256").hex()


def _headers_of(headers: Mapping[str, HeaderValue]) -> list[str]:
    return [
        f"{name}={type(value).__name__}={value}"
        for name, value in sorted(headers.items())
        if name != SEAL and not name.startswith(_ADDED_BY_BROKER)
    ]
