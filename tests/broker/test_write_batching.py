"""Writes of a busy node are sent together; a client that is alone never waits."""

import asyncio
from dataclasses import dataclass, field

import broker.write_batching as write_batching
from actors.calls import Call, Survey, Write
from actors.values import MakeDirectory
from broker.write_batching import WriteBatcher


def write(token: int) -> Write:
    return Write(token=token, operation=MakeDirectory(path="a"))


@dataclass
class Sink:
    """Records which calls were released together."""

    released: list[list[int]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, calls: list[Call]) -> None:
        self.released.append([call.token for call in calls])
        self.news.set()


async def test_a_client_alone_never_waits() -> None:
    sink = Sink()
    alone = WriteBatcher(sink)
    for token in range(1, 5):
        alone.add(write(token))
        assert sink.released[-1] == [token]
        alone.finished(write(token))


async def test_a_call_that_is_no_write_is_released_at_once() -> None:
    sink = Sink()
    busy = WriteBatcher(sink)
    for token in range(1, 9):
        busy.add(write(token))
    before = len(sink.released)
    busy.add(Survey(token=99))
    assert sink.released[before:] == [[99]]


async def test_the_half_of_those_under_way_leave_together() -> None:
    """Eight clients are answered one after the other, and each sends its next write at once."""
    sink = Sink()
    busy = WriteBatcher(sink)
    for token in range(8):
        busy.add(write(token))
    busy.flush()
    sink.released.clear()

    for token in range(8):
        busy.finished(write(token))
        busy.add(write(100 + token))

    assert sink.released == [[100, 101, 102, 103], [104, 105, 106, 107]]


async def test_nothing_waits_for_long() -> None:
    sink = Sink()
    busy = WriteBatcher(sink)
    for token in range(8):
        busy.add(write(token))
    busy.flush()
    for token in range(8):
        busy.finished(write(token))
    sink.released.clear()
    sink.news.clear()

    busy.add(write(100))
    assert sink.released == []
    await asyncio.wait_for(sink.news.wait(), timeout=5)
    assert sink.released == [[100]]


async def test_a_busy_time_is_forgotten() -> None:
    sink = Sink()
    busy = WriteBatcher(sink)
    for token in range(8):
        busy.add(write(token))
    busy.flush()
    for token in range(8):
        busy.finished(write(token))
    sink.released.clear()

    later_s = busy._window_start_s + 2 * write_batching.LOAD_WINDOW_S + 1
    busy._track_peak(later_s)
    busy._window_start_s = asyncio.get_running_loop().time()
    busy.add(write(100))

    assert sink.released == [[100]]
