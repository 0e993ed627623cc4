"""Memory is granted in the order of the requests, and none is lost, whatever happens to waiters."""

import asyncio
import random

import pytest

from gateway.http import memory_budget
from gateway.http.client_timeouts import LEAST_BYTES_PER_S, WaitAllowance
from gateway.http.memory_budget import MemoryBudget
from gateway.http.problems import UNAVAILABLE, Problem


async def test_the_first_to_ask_is_the_first_to_get() -> None:
    """Also if the next one needs less memory than the first."""
    memory = MemoryBudget(100)
    got: list[str] = []

    async def acquire(name: str, size: int) -> None:
        await memory.acquire(size, 10)
        got.append(name)

    await acquire("a", 60)
    async with asyncio.TaskGroup() as group:
        for name, size in (("b", 80), ("c", 10), ("d", 30)):
            group.create_task(acquire(name, size))
            await asyncio.sleep(0)
        assert (got, memory.held, memory.scarce) == (["a"], 60, True)
        assert not memory.try_acquire(1), "those who wait come first"
        memory.release(60)
        await asyncio.sleep(0)
        assert (got, memory.held) == (["a", "b", "c"], 90)
        memory.release(80)

    assert (got, memory.held) == (["a", "b", "c", "d"], 40)


async def test_a_request_without_a_turn_in_time_is_refused() -> None:
    memory = MemoryBudget(100)
    await memory.acquire(90, 10)
    behind = asyncio.ensure_future(memory.acquire(5, 10))

    async with asyncio.TaskGroup() as group:
        refused = group.create_task(_refusal(memory.acquire(20, 0.01)))
        await asyncio.sleep(0)
        await behind
    problem = await refused

    assert (problem.kind, problem.headers) == (UNAVAILABLE, {"retry-after": "2"})
    assert memory.held == 95


async def test_a_request_is_refused_at_once_if_too_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_budget, "WAITERS_MAX", 1)
    memory = MemoryBudget(100)
    await memory.acquire(100, 10)
    waiting = asyncio.ensure_future(memory.acquire(1, 10))
    await asyncio.sleep(0)

    problem = await _refusal(memory.acquire(1, 10))

    assert problem.kind is UNAVAILABLE
    waiting.cancel()


async def test_chunks_that_are_not_whole_have_half_of_it() -> None:
    memory = MemoryBudget(100)
    assert memory.allows_partial(50)
    assert not memory.allows_partial(51)
    await memory.acquire_partial(50, 10)
    assert not memory.allows_partial(1)
    memory.end_partial(50)
    assert memory.allows_partial(50)
    assert memory.held == 50, "it is whole now, and still there"


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_or_given_twice(seed: int) -> None:
    """Given requests that wait, give up and are cancelled, then all memory is released."""
    chance = random.Random(seed)
    memory = MemoryBudget(1000)
    refused = done = 0

    async def one() -> None:
        nonlocal refused, done
        size = chance.randint(1, 400)
        try:
            if memory.allows_partial(size) and chance.random() < 0.5:
                await memory.acquire_partial(size, chance.random() / 50)
                memory.end_partial(size)
            else:
                await memory.acquire(size, chance.random() / 50)
        except Problem:
            refused += 1
            return
        try:
            assert 0 < memory.held <= 1000
            await asyncio.sleep(chance.random() / 200)
        finally:
            memory.release(size)
        done += 1

    tasks = [asyncio.ensure_future(one()) for _ in range(300)]
    for task in tasks[::7]:
        await asyncio.sleep(chance.random() / 1000)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert refused
    assert done
    assert memory.held == 0
    assert memory.allows_partial(500)
    assert memory.try_acquire(1000)


def test_a_client_has_the_full_patience_and_no_more() -> None:
    pace = WaitAllowance(10)
    pace.moved(1_000_000_000, 1)
    assert pace.left_s == 10, "what moved fast is no credit for a stall"
    pace.moved(0, 4)
    assert pace.left_s == 6
    pace.moved(LEAST_BYTES_PER_S, 1)
    assert pace.left_s == 6, "at the least rate nothing is used up"
    pace.moved(LEAST_BYTES_PER_S // 2, 1)
    assert pace.left_s == 5.5


async def _refusal(taking: object) -> Problem:
    with pytest.raises(Problem) as caught:
        await taking  # type: ignore[misc]
    return caught.value
