"""Writes of a busy node are sent together; a client that is alone never waits."""

import asyncio
from dataclasses import dataclass, field

import broker.write_batching as gathering
from actors.calls import Call, Survey, Write
from actors.values import MakeDirectory
from broker.write_batching import WriteBatcher


def write(token: int) -> Write:
    return Write(token=token, operation=MakeDirectory(path="a"))


@dataclass
class Door:
    """Remembers which calls were let go together."""

    released: list[list[int]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, calls: list[Call]) -> None:
        self.released.append([call.token for call in calls])
        self.news.set()


async def test_a_client_alone_never_waits() -> None:
    door = Door()
    alone = WriteBatcher(door)
    for token in range(1, 5):
        alone.add(write(token))
        assert door.released[-1] == [token]
        alone.finished(write(token))


async def test_a_call_that_is_no_write_is_released_at_once() -> None:
    door = Door()
    busy = WriteBatcher(door)
    for token in range(1, 9):
        busy.add(write(token))
    before = len(door.released)
    busy.add(Survey(token=99))
    assert door.released[before:] == [[99]]


async def test_the_half_of_those_under_way_leave_together() -> None:
    """Eight clients are answered one after the other, and each of them comes back at once."""
    door = Door()
    busy = WriteBatcher(door)
    for token in range(8):
        busy.add(write(token))
    busy.flush()
    door.released.clear()

    for token in range(8):
        busy.finished(write(token))
        busy.add(write(100 + token))

    assert door.released == [[100, 101, 102, 103], [104, 105, 106, 107]]


async def test_nothing_waits_for_long() -> None:
    door = Door()
    busy = WriteBatcher(door)
    for token in range(8):
        busy.add(write(token))
    busy.flush()
    for token in range(8):
        busy.finished(write(token))
    door.released.clear()
    door.news.clear()

    busy.add(write(100))
    assert door.released == []
    await asyncio.wait_for(door.news.wait(), timeout=5)
    assert door.released == [[100]]


async def test_a_busy_time_is_forgotten() -> None:
    door = Door()
    busy = WriteBatcher(door)
    for token in range(8):
        busy.add(write(token))
    busy.flush()
    for token in range(8):
        busy.finished(write(token))
    door.released.clear()

    later_s = busy._window_start_s + 2 * gathering.LOAD_WINDOW_S + 1
    busy._track_peak(later_s)
    busy._window_start_s = asyncio.get_running_loop().time()
    busy.add(write(100))

    assert door.released == [[100]]
