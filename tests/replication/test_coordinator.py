"""A coordinator that dies, or is paused and goes on later, at every point of two-phase commit."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.calls import Unknown, WriteDecided
from actors.messages import AnyMessage, ProposeValue
from actors.values import Abort
from tests.replication.cluster import MemoryCluster, Stop, eventually, memory_cluster
from tests.worlds import put

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def _is_abort(message: AnyMessage) -> bool:
    return isinstance(message, ProposeValue) and isinstance(message.value, Abort)


# A prepare and a decision go to all stores in one message, so "between" is where one store has
# received it and the others have not: the stores named here never receive it.
POINTS: dict[str, tuple[Callable[[], Stop], tuple[str, ...]]] = {
    "before any prepare": (lambda: Stop("send", "txn.prepare"), ()),
    "between prepares": (lambda: Stop("send", "txn.prepare", side="after"), ("store-2", "store-3")),
    "with some votes": (lambda: Stop("receive", "txn.vote", 2, "after"), ()),
    "with all votes, before the answer": (lambda: Stop("send", "client.result"), ()),
    "after the answer, before a decision": (
        lambda: Stop("send", "client.result", side="after"),
        (),
    ),
    "after the answer, between decisions": (
        lambda: Stop("send", "txn.decision", side="after"),
        ("store-2", "store-3"),
    ),
    "after it proposed an abort": (
        lambda: Stop("send", "log.propose", 1, "after", about=_is_abort),
        ("store-3",),
    ),
}


def _lose_messages(
    cluster: MemoryCluster, point: str, stores: tuple[str, ...], after_slot: int
) -> None:
    """The stores of this case don't receive the coordinator's last message."""
    lost = "txn.decision" if "answer" in point else "txn.prepare"
    put_message = cluster.broker.put

    def put_unless_lost(name: str, lane: str, item: object, size_bytes: int) -> int:
        messages = getattr(item, "messages", ())
        epoch_0 = [m for m in messages if m.type == lost and m.epoch == 0 and m.slot > after_slot]
        if name in stores and epoch_0 and getattr(item, "sender", "") == "learner-1":
            return 0
        return put_message(name, lane, item, size_bytes)  # type: ignore[arg-type]

    cluster.broker.put = put_unless_lost  # type: ignore[method-assign]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("ending", ["killed", "held up"])
async def test_the_other_learner_takes_over_and_every_answer_stands(
    tmp_path: Path, point: str, ending: str
) -> None:
    make_stop, deaf = POINTS[point]
    stop = make_stop()
    async with memory_cluster(tmp_path, {"learner-1": stop}, heartbeat_ms=400) as cluster:
        first = await cluster.done(put("a", b"1"))
        _lose_messages(cluster, point, deaf, first.outcome.slot)
        stop.armed = True
        write = asyncio.create_task(cluster.write(put("a", b"2")))
        await stop.reached.wait()
        if ending == "killed":
            await cluster.kill("learner-1")

        await eventually(lambda: cluster.actor("learner-2").coordinator is not None)
        answer = await write
        await cluster.done(put("b", b"1"))
        if ending == "killed":
            await cluster.start("learner-1")
        else:
            stop.released.set()

        await cluster.settled()
        assert isinstance(answer, WriteDecided | Unknown), answer
        version = cluster.actor("store-1").state.entries["a"].version
        if isinstance(answer, WriteDecided):
            assert version == (2 if answer.outcome.status == "done" else 1), answer
        if point.startswith("after the answer"):
            # The coordinator had sent the result to the client, so it must stand.
            assert isinstance(answer, WriteDecided)
            assert answer.outcome.status == "done"
        assert all(not cluster.actor(name).prepared for name in cluster.options.names("store"))
        assert cluster.coordinator == "learner-2"
        assert cluster.epoch >= 1


async def test_a_paused_coordinator_does_no_harm_when_it_goes_on(tmp_path: Path) -> None:
    """Given prepares of its old epoch, when it sends them later, then the fence refuses them."""
    stop = Stop("send", "txn.prepare")
    async with memory_cluster(tmp_path, {"learner-1": stop}, heartbeat_ms=400) as cluster:
        await cluster.done(put("a", b"1"))
        stop.armed = True
        write = asyncio.create_task(cluster.write(put("a", b"2"), retry=True))
        await stop.reached.wait()
        await eventually(lambda: cluster.actor("learner-2").coordinator is not None)
        answer = await write
        assert answer.outcome.status == "done", answer
        newest = await cluster.done(put("a", b"3"))

        stop.released.set()
        fenced = [cluster.actor(name) for name in cluster.options.names("store")]
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: any(s.counters["fenced"] for s in fenced), within_s=2.0)

        for _ in range(10):
            entry = (await cluster.read("a")).reply.entry
            assert entry is not None
            assert (entry.slot, entry.index) == (newest.outcome.slot, newest.outcome.index)
        await cluster.settled()
        assert cluster.actor("learner-1").coordinator is None
