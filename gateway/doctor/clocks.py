"""The check of this host's clock against those of other hosts, by the `Date` of their responses."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx

from gateway.doctor.findings import Diagnosis

DIFFERENCE_S_MAX = 1.0
_TIMEOUT_S = 5.0
_DATE_PRECISION_S = 1.0
"""A `Date` is a whole second: the clock showed that or up to a second more."""


class Difference(NamedTuple):
    """How far another clock is ahead of this one, in seconds: at least and at most."""

    least_s: float
    most_s: float

    @property
    def certain_s(self) -> float:
        """By how much the clocks differ for certain; 0 if they may be equal."""
        return max(self.least_s, -self.most_s, 0.0)


def difference(date: str, sent_s: float, received_s: float) -> Difference:
    """From the header `Date` of a response, and this clock's seconds since 1970 when the request
    was sent and the response received. Raises `ValueError`.
    """
    moment = parsedate_to_datetime(date)
    shown_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return Difference(shown_s - received_s, shown_s + _DATE_PRECISION_S - sent_s)


async def check_clocks(urls: Mapping[str, ssl.SSLContext | bool]) -> Diagnosis:
    """Compare this clock with those of the servers at `urls`, as far as they answer. Each has the
    certificates to trust, as httpx takes them.
    """
    check = "clock"
    answers = await asyncio.gather(*(_ask(url, verify) for url, verify in urls.items()))
    known = {url: each for url, each in zip(urls, answers, strict=True) if each is not None}
    if not known:
        return Diagnosis.skipped(
            check,
            "can't be known: no gateway and no management API of RabbitMQ was named or answers",
            "Name a gateway with --url.",
        )
    wrong = {url: value for url, value in known.items() if value.certain_s > DIFFERENCE_S_MAX}
    if not wrong:
        return Diagnosis.ok(check, f"within a second of {', '.join(known)}")
    told = ", ".join(f"{value.certain_s:.0f} s or more from {url}" for url, value in wrong.items())
    return Diagnosis.warning(
        check,
        f"differs by {told}, and so do times in files, traces and logs; no rule of the protocol "
        "reads this clock",
        "Run a time service on both hosts (chrony, systemd-timesyncd).",
    )


async def _ask(url: str, verify: ssl.SSLContext | bool) -> Difference | None:
    """None without an answer that has a date."""
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, verify=verify) as client:
            sent_s = time.time()
            response = await client.get(url)
            return difference(response.headers["date"], sent_s, time.time())
    except (httpx.HTTPError, KeyError, ValueError):
        return None
