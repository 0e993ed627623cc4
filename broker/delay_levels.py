"""The delays for which the broker can hold a message: each has a queue of its own (design 6)."""

import bisect

from actors.numbers import Milliseconds

DELAY_RATIO = 1.15
"""Between levels; small enough that a timer's jitter survives rounding up to the next level."""

LONGEST_DELAY_MS = 60_000


def _delay_levels() -> tuple[Milliseconds, ...]:
    levels = [10]
    while levels[-1] < LONGEST_DELAY_MS:
        levels.append(min(max(levels[-1] + 1, round(levels[-1] * DELAY_RATIO)), LONGEST_DELAY_MS))
    return tuple(levels)


DELAYS_MS = _delay_levels()
"""Each has its own queue, because a message behind one with a longer delay would be late."""


def delay_level_ms(delay_ms: Milliseconds) -> Milliseconds:
    """The smallest level that is at least `delay_ms`, or the largest level."""
    return DELAYS_MS[min(bisect.bisect_left(DELAYS_MS, delay_ms), len(DELAYS_MS) - 1)]
