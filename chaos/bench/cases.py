"""What is measured: a mix of operations, their size, how many clients, in which loop."""

import random
import re
from dataclasses import dataclass
from typing import Literal, Self

Verb = Literal["read", "write"]

SIZE_BYTES_MIN = 100
SIZE_BYTES_MAX = 100 * 1024 * 1024
CLIENTS_MAX = 1024
HELD_BYTES_MAX = 2 * 1024**3
"""The most that all clients' contents together may take in the memory of the load."""

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "kib": 1024,
    "mib": 1024**2,
}
_SIZE = re.compile(r"(\d+)\s*([a-z]*)", re.IGNORECASE)
_PART = re.compile(r"(read|write)(?:=(\d+))?")


@dataclass(frozen=True, slots=True)
class Mix:
    """How many of each hundred operations, or of any other sum, read and how many write."""

    reads: int
    writes: int

    def __post_init__(self) -> None:
        if self.reads < 0 or self.writes < 0 or not self.reads + self.writes:
            raise ValueError(f"a mix needs operations: {self!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`read`, `write`, or weights such as `read=80,write=20`. Raises `ValueError`."""
        weights = {"read": 0, "write": 0}
        parts = [part.strip() for part in text.split(",")]
        for part in parts:
            found = _PART.fullmatch(part)
            if found is None or weights[found[1]]:
                raise ValueError(f"{text!r} is no mix, such as read, write or read=80,write=20")
            if found[2] is None and len(parts) > 1:
                raise ValueError(f"{part!r} needs a weight, such as {part}=50")
            weights[found[1]] = int(found[2] or 100)
        if not any(weights.values()):
            raise ValueError(f"{text!r} has no operations")
        return cls(weights["read"], weights["write"])

    def __str__(self) -> str:
        """As `parse` reads it."""
        if not self.writes:
            return "read"
        if not self.reads:
            return "write"
        return f"read={self.reads},write={self.writes}"

    def choose(self, chance: random.Random) -> Verb:
        """Draw one operation."""
        if not self.writes or not self.reads:
            return "read" if self.reads else "write"
        return "read" if chance.random() * (self.reads + self.writes) < self.reads else "write"


@dataclass(frozen=True, slots=True)
class LoadCase:
    """One load. Without `rate` each client sends its next request when it has its answer (closed
    loop); with it, requests are due at that many a second, whatever the answers (open loop).
    """

    mix: Mix
    size_bytes: int
    clients: int
    rate: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= CLIENTS_MAX:
            raise ValueError(f"{self.clients} clients: 1 to {CLIENTS_MAX} are possible")
        if not SIZE_BYTES_MIN <= self.size_bytes <= SIZE_BYTES_MAX:
            raise ValueError(
                f"{self.size_bytes} bytes: {SIZE_BYTES_MIN} B to {size_name(SIZE_BYTES_MAX)} "
                "are possible"
            )
        if (held := self.clients * self.size_bytes) > HELD_BYTES_MAX:
            raise ValueError(
                f"{self.clients} clients with {size_name(self.size_bytes)} each need "
                f"{held / 1024**3:.1f} GiB in the load's memory; "
                f"{HELD_BYTES_MAX / 1024**3:.0f} GiB are possible"
            )
        if self.rate is not None and not 0 < self.rate <= 1_000_000:
            raise ValueError(f"{self.rate:g} requests a second are not possible")

    @property
    def name(self) -> str:
        """For people, without the number of clients."""
        open_loop = "" if self.rate is None else f" at {self.rate:g}/s"
        return f"{self.mix} {size_name(self.size_bytes)}{open_loop}"


def parse_size(text: str) -> int:
    """Bytes of a text such as `100`, `1KiB` or `100MB`. Raises `ValueError`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is no size, such as 100, 1KiB or 100MB")
    return int(found[1]) * _UNITS[found[2].lower()]


def size_name(size_bytes: int) -> str:
    """The shortest exact text for a size, which `parse_size` reads."""
    for unit, factor in (("MiB", 1024**2), ("MB", 1000**2), ("KiB", 1024), ("kB", 1000)):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} B"
