"""The addresses of a cluster of brokers, and which of them to try next."""

import random
import re
from collections.abc import Sequence

from yarl import URL

_NEXT_URL = re.compile(r"[,\s]+(?=[a-z]+://)")


def split_urls(text: str) -> tuple[str, ...]:
    """The URLs of `text`, which names one broker or several, separated by commas or spaces."""
    return tuple(url for url in _NEXT_URL.split(text.strip().rstrip(",")) if url)


class BrokerAddresses:
    """The brokers of one cluster in a random order, so that clients spread over them.

    After a failure the next one is tried, and none twice before all were tried once.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        if not urls:
            raise ValueError("no broker is named")
        self._urls = random.sample(urls, len(urls))
        self._failures = 0

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def urls(self) -> tuple[str, ...]:
        """All of them, the one to be tried next first."""
        return tuple(self._urls)

    @property
    def current(self) -> str:
        """The URL to connect to."""
        return self._urls[0]

    @property
    def rounds(self) -> int:
        """How often each of them has failed since the last success."""
        return self._failures // len(self._urls)

    def succeeded(self) -> None:
        """The current broker can be used."""
        self._failures = 0

    def failed(self) -> None:
        """The current broker can't be used, or no longer: it is the last one to be tried again."""
        self._failures += 1
        self._urls.append(self._urls.pop(0))

    def __str__(self) -> str:
        """The current broker, without user, password and parameters."""
        return str(URL(self.current).with_user(None).with_query(None))
