"""The turn: records are durable before messages are sent, and a failed actor is rebuilt."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from actors.calls import Survey
from actors.disk_events import BlobRotten, DiskSpace, RowRotten
from actors.effects import Answer, Blob, Envelope, Group, Record, SendBlob, TimerKey
from actors.messages import AnyMessage, ChunkData, ChunkMissing, ChunkRefused
from broker import maintenance, runtime
from broker.journal import Journal
from broker.journal_folder import JournalCorrupt, JournalFailed
from broker.local_calls import CallOutcomeUnknown, CallRefused
from broker.maintenance import MaintenanceOptions
from broker.memory_broker import MemoryBroker, MemoryTransport
from broker.observer import Interceptor, Observer
from broker.runtime import HostOptions, NodeHalted
from broker.transport import Parcel
from tests.broker.actors import Behaviour, Puppet, fail, note, violate
from tests.broker.hosting import House, inject, memory_house, puppet, until
from tests.broker.samples import HASH


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def house(tmp_path: Path, broker: MemoryBroker) -> House:
    return House(tmp_path, broker.transport)


def survey(token: int) -> Survey:
    return Survey(token=token)


def ask(text: str) -> Any:
    """A call whose behaviour is that of `text`."""

    def behaviour(this: Puppet, envelope: Envelope) -> None:
        token: int = envelope.message.token  # type: ignore[attr-defined]
        verb = text.partition(" ")[0]
        this.on[verb](this, envelope)
        this.out.answers.append(Answer(token, "told"))

    return behaviour


async def test_a_call_is_answered_and_never_crosses_the_broker(house: House) -> None:
    host = house.host("gateway-1")
    async with house.running(host):
        assert await host.call(survey) == ["call.survey"]
        (envelope,) = puppet(host).envelopes
        assert (envelope.sender, envelope.disk) == ("gateway-1", host.identity.disk)


async def test_messages_that_arrive_together_are_one_turn_with_one_commit(house: House) -> None:
    # Given ten calls that wait before the node's first turn
    def keep(this: Puppet, envelope: Envelope) -> None:
        token: int = envelope.message.token  # type: ignore[attr-defined]
        this.keep(f"k{token}", b"v")
        this.send("store-1", f"text {token}")
        this.out.answers.append(Answer(token, None))

    sender = house.host("gateway-1", {"call.survey": keep})
    receiver = house.host("store-1")
    commits_before = sender.identity.journal_commits
    async with house.running(sender, receiver):
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(sender.call(survey))
        await until(lambda: len(puppet(receiver).seen) == 10)
        # Then they are one commit, one settle (after restore's) and one message, in order
        assert sender._journal.identity.journal_commits == commits_before + 1
        assert puppet(sender).settled == 2
        assert puppet(receiver).seen == [f"text {number}" for number in range(1, 11)]
        assert puppet(receiver).settled == 2


class Spy(MemoryTransport):
    """Records the sent messages, in the same list as the commits."""

    def __init__(self, broker: MemoryBroker, name: str, trace: list[str]) -> None:
        broker.transport(name)
        super().__init__(broker, name)
        self.trace = trace

    def publish(self, to: str, parcel: Parcel) -> None:
        self.trace.append(f"send {to} x{len(parcel.messages)}")
        super().publish(to, parcel)

    def delay(self, delay_ms: int, timer_message: Any) -> bool:
        self.trace.append(f"timer {delay_ms}")
        return super().delay(delay_ms, timer_message)

    def acknowledge(self, receipt: Any) -> None:
        self.trace.append("acknowledge")
        super().acknowledge(receipt)


async def test_a_turn_is_carried_out_in_order(
    tmp_path: Path, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace: list[str] = []
    real_commit = Journal.commit

    def commit(self: Journal, records: list[Record], blobs: list[Blob]) -> None:
        trace.append(f"commit {len(records)}+{len(blobs)}")
        real_commit(self, records, blobs)

    monkeypatch.setattr(Journal, "commit", commit)

    def work(this: Puppet, envelope: Envelope) -> None:
        this.set_timer("soon", 5)
        this.send("store-2", "a")
        this.out.answers.append(Answer(1, None))
        this.send("store-3", "b")
        this.keep("k", b"v")
        this.send("store-2", "c")
        this.out.blobs.append(Blob(HASH, b""))

    house = House(tmp_path, lambda name: Spy(broker, name, trace))
    host = house.host("store-1", {"work": work})
    async with house.running(host):
        sender = broker.transport("gateway-1")
        trace.clear()
        inject(broker, "store-1", note("work"))
        await until(lambda: "acknowledge" in trace)
        assert trace[:5] == [
            "commit 1+1",
            "send store-2 x2",
            "send store-3 x1",
            "timer 10",
            "acknowledge",
        ]
        del sender


async def test_when_the_commit_fails_nothing_is_sent(
    house: House, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(this: Puppet, envelope: Envelope) -> None:
        this.keep("k", b"v")
        this.send("store-2", "I hold it")

    host, witness = house.host("store-1", {"work": work}), house.host("store-2")

    def commit(*_: object) -> None:
        raise JournalFailed("disk full")

    async with house.running(witness):
        running = asyncio.create_task(host.run())
        await host.ready()
        monkeypatch.setattr(host._journal, "commit", commit)
        inject(broker, "store-1", note("work"))
        with pytest.raises(JournalFailed, match="disk full"):
            await running
        # Another message that surely came later proves that the first was never sent.
        inject(broker, "store-2", note("later"))
        await until(lambda: puppet(witness).seen)
        assert puppet(witness).seen == ["later"]
        # And the message was not acknowledged: it is delivered again to the next process.
        assert len(broker.lanes("store-1")[0].ready) == 1
    host._journal.close()


async def test_an_actor_that_fails_once_is_rebuilt_and_tries_again(
    house: House, broker: MemoryBroker
) -> None:
    failures = iter([True])

    def stumble(this: Puppet, envelope: Envelope) -> None:
        this.keep("lost", b"of the failed turn")
        if next(failures, False):
            raise ValueError("once")
        this.keep("kept", b"of the second try")

    def keep(this: Puppet, envelope: Envelope) -> None:
        this.keep("first", b"v")

    host = house.host("store-1", {"keep": keep, "stumble": stumble})
    async with house.running(host):
        inject(broker, "store-1", note("keep"))
        await until(lambda: puppet(host).seen == ["keep"])
        before = puppet(host)
        inject(broker, "store-1", note("stumble"), note("after"))
        await until(lambda: puppet(host).seen == ["stumble", "after"])
        # A rebuild counts as a restart.
        assert puppet(host) is not before
        assert puppet(host).identity.incarnation == before.identity.incarnation + 1
        assert puppet(host).identity.fresh_id != before.identity.fresh_id
        assert puppet(host).identity.disk == before.identity.disk
        assert puppet(host).restored == [Record("first", b"v")]
        assert not broker.quarantined
        await until(lambda: not broker.lanes("store-1")[0].unacknowledged)


async def test_a_message_that_fails_twice_goes_to_quarantine_and_the_others_are_taken(
    house: House, broker: MemoryBroker
) -> None:
    rebuilt: list[str] = []

    class Watcher(Observer):
        def rebuilt(self, reason: str) -> None:
            rebuilt.append(reason)

    taken: list[str] = []

    def take(this: Puppet, envelope: Envelope) -> None:
        assert isinstance(envelope.message, ChunkRefused)
        taken.append(envelope.message.reason)

    host = house.host("store-1", {"take": take, "poison": fail}, observer=Watcher())
    async with house.running(host):
        inject(broker, "store-1", note("take 1"), note("poison"), note("take 2"))
        await until(lambda: "take 2" in taken)
        ((parcel, reason),) = broker.quarantined
        assert parcel.messages == (note("poison"),)
        assert parcel.sender == "store-9"
        assert reason == "store-1: ValueError: the actor's own mistake"
        # Once with the others (that turn was undone), once alone.
        assert taken == ["take 1", "take 1", "take 2"]
        assert len(rebuilt) == 2
        assert host.identity.incarnation == 3
        inject(broker, "store-1", note("take 3"))
        await until(lambda: taken[-1] == "take 3")


async def test_calls_survive_the_failure_of_others_or_raise(
    house: House, broker: MemoryBroker
) -> None:
    waiting: list[Envelope] = []

    def take(this: Puppet, envelope: Envelope) -> None:
        waiting.append(envelope)

    host = house.host("gateway-1", {"call.survey": take, "poison": fail})
    async with house.running(host):
        early = asyncio.create_task(host.call(survey))
        await until(lambda: waiting)
        inject(broker, "gateway-1", note("poison"))
        with pytest.raises(CallOutcomeUnknown, match="own mistake"):
            await early
        assert not host._calls
        # A call that itself fails the actor raises, too, and the node continues.
        puppet(host).on["call.survey"] = fail
        with pytest.raises(CallOutcomeUnknown, match="failed on it"):
            await host.call(survey)


async def test_a_caller_may_lose_patience(house: House) -> None:
    host = house.host("gateway-1", {"call.survey": lambda *_: None})
    async with house.running(host):
        with pytest.raises(TimeoutError, match="not answered"):
            await host.call(survey, 0.05)
        assert not host._calls
        puppet(host).on.clear()
        assert await host.call(survey, 5) == ["call.survey", "call.survey"]


async def test_calls_are_bounded(house: House) -> None:
    host = house.host(
        "gateway-1", {"call.survey": lambda *_: None}, options=HostOptions(calls_max=3)
    )
    async with house.running(host):
        calls = [asyncio.create_task(host.call(survey)) for _ in range(3)]
        await until(lambda: len(puppet(host).seen) == 3)
        with pytest.raises(CallRefused):
            await host.call(survey)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert not host._calls


@pytest.mark.parametrize("place", ["receive", "settle", "expire", "restore"])
async def test_a_violated_invariant_halts_the_node_and_says_why(
    house: House, broker: MemoryBroker, place: str
) -> None:
    on: dict[str, Behaviour] = {"break" if place == "receive" else place: violate}
    if place == "expire":
        on["break"] = lambda this, _: this.set_timer("t", 0)
    host = house.host("store-1", on)
    running = asyncio.create_task(host.run())
    inject(broker, "store-1", note("break"), note("after"))
    with pytest.raises(NodeHalted, match="two values for slot 7"):
        await running
    assert "two values for slot 7" in host.halted
    with pytest.raises(NodeHalted, match="two values"):
        await host.call(survey)
    host._journal.close()


async def test_the_last_messages_of_an_actor_that_halts_are_sent(
    house: House, broker: MemoryBroker
) -> None:
    def refuse(this: Puppet, envelope: Envelope) -> None:
        this.keep("why", b"stale")
        this.send("store-2", "farewell")
        this.out.halt = "the disk is older than what it once reported"

    host, witness = house.host("store-1", {"refuse": refuse}), house.host("store-2")
    async with house.running(witness):
        running = asyncio.create_task(host.run())
        inject(broker, "store-1", note("refuse"))
        with pytest.raises(NodeHalted, match="older than what it once reported"):
            await running
        await until(lambda: puppet(witness).seen == ["farewell"])
    assert list(host._journal.records()) == [Record("why", b"stale")]
    host._journal.close()


async def test_rotten_contents_are_never_sent_and_the_actor_is_notified(
    house: House, broker: MemoryBroker
) -> None:
    def work(this: Puppet, envelope: Envelope) -> None:
        this.out.sends.append(SendBlob("gateway-1", HASH))

    host, reader = house.host("store-1", {"work": work}), house.host("gateway-1")
    host._journal.commit([], [Blob(HASH, b"not what its name says")])
    async with house.running(host, reader):
        inject(broker, "store-1", note("work"))
        await until(lambda: puppet(reader).envelopes and "disk.blob_rotten" in puppet(host).seen)
        assert [each.message for each in puppet(reader).envelopes] == [ChunkMissing(sha256=HASH)]


async def test_the_scrub_finds_rot_in_contents_without_readers(house: House) -> None:
    host = house.host(
        "store-1", options=HostOptions(maintenance=MaintenanceOptions(scrub_rest_s=0.01))
    )
    host._journal.commit([], [Blob(HASH, b"rotten")])
    host._journal.commit([Record("a", b"1"), Record("b", b"2")])
    database = host._journal._connection
    async with house.running(host):
        await until(lambda: "disk.blob_rotten" in puppet(host).seen)
        # Rows come from the log into the database to be scrubbed.
        await until(lambda: host._maintenance.passes > 0)
        damage = "UPDATE records SET value = x'00' WHERE key = 'b'"
        assert database.execute(damage).rowcount == 1
        await until(lambda: "disk.row_rotten" in puppet(host).seen)
        rotten = [e.message for e in puppet(host).envelopes if isinstance(e.message, RowRotten)]
        assert {notice.key for notice in rotten} == {"b"}


@pytest.mark.parametrize("turns", [1, 2])
async def test_rot_that_was_mended_meanwhile_is_not_reported_again(
    house: House, turns: int
) -> None:
    """Given the scrub and a reader that find the same rot, when a sound copy comes between their
    two notices, in the same turn or in one before, then the actor keeps it.
    """
    sound = b"sound"
    name = hashlib.sha256(sound).hexdigest()

    def mend(this: Puppet, envelope: Envelope) -> None:
        this.out.blobs += [Blob(name, None), Blob(name, sound)]

    behaviours = {"disk.blob_rotten": mend}
    host = house.host("store-1", behaviours, options=HostOptions(drain_messages_max=2 // turns))
    host._journal.commit([], [Blob(name, b"rotten")])
    for _ in range(2):
        host._notify(BlobRotten(sha256=name))
    async with house.running(host):
        await until(lambda: "disk.blob_rotten" in puppet(host).seen)
        seen = await host.call(survey)
        assert seen == ["disk.blob_rotten", "call.survey"]
        assert host._journal.read_blob(name) == sound


async def test_a_full_disk_silences_the_node_until_there_is_room(
    house: House, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a commit without space, then nothing at all is sent before there is some.

    A new start and its greeting would fit into the pages that the file has, and would pass for a
    sign of life of a node that can't do its work.
    """
    monkeypatch.setattr(runtime, "DISK_FULL_RETRY_S", 0.02)
    may_check: list[bool] = []
    has_space = Journal.has_space

    def look(journal: Journal, size_bytes: int) -> bool:
        may_check.append(has_space(journal, size_bytes))
        return may_check[-1]

    monkeypatch.setattr(Journal, "has_space", look)

    def greet(this: Puppet, envelope: Envelope) -> None:
        this.send("gateway-1", "hello")

    def work(this: Puppet, envelope: Envelope) -> None:
        this.keep("work", bytes(100_000))
        this.send("gateway-1", "done")

    reader = house.host("gateway-1")
    host = house.host("store-1", {"restore": greet, "work": work})
    connection = host._journal._connection
    host._journal._log.limit(0)
    async with house.running(reader), house.running(host):
        await until(lambda: puppet(reader).seen == ["hello"])
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        first = host.identity.incarnation
        inject(broker, "store-1", note("work"))
        await until(lambda: len(may_check) > 3)
        assert (host.identity.incarnation, puppet(reader).seen) == (first, ["hello"])

        connection.execute("PRAGMA max_page_count = 1000000").fetchone()
        await until(lambda: "done" in puppet(reader).seen)
        assert puppet(reader).seen == ["hello", "hello", "done"]
        assert {row.key for row in host._journal.records()} == {"work"}
        assert (may_check.count(True), host.identity.incarnation) == (1, first + 1)


async def test_the_actor_is_notified_when_space_is_low_and_when_it_is_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "CHECK_INTERVAL_S", 0.01)
    free = [10]
    monkeypatch.setattr(Journal, "free_bytes", lambda self: free[0])
    host = house.host(
        "store-1", options=HostOptions(maintenance=MaintenanceOptions(disk_reserve_bytes=100))
    )
    async with house.running(host):
        await until(lambda: len(puppet(host).envelopes) == 1)
        free[0] = 110  # Not enough: it must not flicker.
        await asyncio.sleep(0)
        free[0] = 130
        await until(lambda: len(puppet(host).envelopes) == 2)
        assert [e.message for e in puppet(host).envelopes] == [
            DiskSpace(low=True, free_bytes=10),
            DiskSpace(low=False, free_bytes=130),
        ]


async def test_contents_come_from_the_journal(house: House, broker: MemoryBroker) -> None:
    import hashlib

    data = b"contents" * 1000
    name = hashlib.sha256(data).hexdigest()

    def work(this: Puppet, envelope: Envelope) -> None:
        this.out.blobs.append(Blob(name, data))
        this.out.sends.append(SendBlob("gateway-1", name))
        this.out.sends.append(SendBlob("gateway-1", HASH))

    host, reader = house.host("store-1", {"work": work}), house.host("gateway-1")
    async with house.running(host, reader):
        inject(broker, "store-1", note("work"))
        await until(lambda: len(puppet(reader).envelopes) == 2)
        messages = {type(each.message): each.message for each in puppet(reader).envelopes}
        assert messages == {
            ChunkData: ChunkData(sha256=name, data=data),
            ChunkMissing: ChunkMissing(sha256=HASH),
        }


async def test_groups_reach_their_members_but_not_the_sender(house: House) -> None:
    def tell(this: Puppet, envelope: Envelope) -> None:
        for group in Group.ALL:
            this.send(group, group)
        this.out.answers.append(Answer(envelope.message.token, None))  # type: ignore[attr-defined]

    names = ("store-1", "store-2", "learner-1", "acceptor-1", "proposer-1", "gateway-1")
    hosts = {name: house.host(name, {"call.survey": tell}) for name in names}
    async with house.running(*hosts.values()):
        await hosts["store-1"].call(survey)
        heard = {
            "store-1": ["call.survey"],
            "store-2": [Group.STORES, Group.HEARTBEATS],
            "learner-1": [Group.LEARNERS, Group.HEARTBEATS, Group.PHASE_2],
            "acceptor-1": [Group.ACCEPTORS, Group.PHASE_2],
            "proposer-1": [Group.HEARTBEATS],
            "gateway-1": [Group.HEARTBEATS],
        }
        await until(
            lambda: (
                {n: sorted(puppet(h).seen) for n, h in hosts.items()}
                == {n: sorted(texts) for n, texts in heard.items()}
            )
        )


async def test_timers_come_back(house: House) -> None:
    late: list[int] = []

    class Watcher(Observer):
        def timer_expired(self, timer: TimerKey, late_ms: int) -> None:
            late.append(late_ms)

    def arm(this: Puppet, envelope: Envelope) -> None:
        this.set_timer("now", 0)
        this.set_timer("soon", 30, 40)
        this.set_timer("never", 30)
        this.cancel_timer("never")
        this.out.answers.append(Answer(envelope.message.token, None))  # type: ignore[attr-defined]

    host = house.host("gateway-1", {"call.survey": arm}, observer=Watcher())
    async with house.running(host):
        await host.call(survey)
        assert puppet(host).timer_expired == [TimerKey("now")]
        await until(lambda: puppet(host).timer_expired == [TimerKey("now"), TimerKey("soon")])
        assert host.timers_armed == 0
        assert len(late) == 1


async def test_a_timer_without_a_delay_that_sets_itself_again_does_not_hold_the_turn(
    house: House,
) -> None:
    host = house.host(
        "gateway-1",
        {
            "expire": lambda this, _: this.set_timer("again", 0),
            "restore": lambda this, _: this.set_timer("again", 0),
        },
    )
    async with house.running(host):
        assert await host.call(survey) == ["call.survey"]
        await until(lambda: len(puppet(host).timer_expired) > 500)


async def test_a_restart_takes_up_what_was_not_acknowledged(
    tmp_path: Path, broker: MemoryBroker
) -> None:
    house = House(tmp_path, broker.transport)
    first = house.host("store-1")
    async with house.running(first):
        pass
    inject(broker, "store-1", note("while it was away"))
    second = house.host("store-1")
    async with house.running(second):
        await until(lambda: puppet(second).seen == ["while it was away"])
        assert second.identity.incarnation == first.identity.incarnation + 1


async def test_everything_passes_through_the_tap(house: House, broker: MemoryBroker) -> None:
    trace: list[str] = []

    class Recorder(Interceptor):
        async def receiving(self, message: AnyMessage) -> None:
            trace.append(f"receiving {message.reason}")  # type: ignore[attr-defined]

        async def received(self, message: AnyMessage) -> None:
            trace.append("received")

        async def sending(self, to: str, message: AnyMessage) -> None:
            kept = [record.key for record in host._journal.records()]
            trace.append(f"sending {to} with {kept}")

        async def sent(self, to: str, message: AnyMessage) -> None:
            trace.append(f"sent {to} with {len(broker.lanes('store-2')[0].ready)} there")

    def work(this: Puppet, envelope: Envelope) -> None:
        this.keep("k", b"v")
        this.send("store-2", "a")
        this.send("store-2", "b")

    broker.transport("store-2")
    host = house.host("store-1", {"work": work}, interceptor=Recorder())
    async with house.running(host):
        inject(broker, "store-1", note("work"))
        await until(lambda: len(trace) == 6)
    assert trace == [
        "receiving work",
        "received",
        "sending store-2 with ['k']",
        "sent store-2 with 1 there",
        "sending store-2 with ['k']",
        "sent store-2 with 2 there",
    ]


async def test_many_nodes_on_one_loop_commit_in_threads(tmp_path: Path) -> None:
    house, _ = memory_house(tmp_path)

    def relay(this: Puppet, envelope: Envelope) -> None:
        this.keep(f"{len(this.seen)}", b"v")
        this.send("store-2" if this.identity.name == "store-1" else "store-1", "relay")

    options = HostOptions(commit_in_thread=True)
    one = house.host("store-1", {"relay": relay, "call.survey": ask("relay")}, options=options)
    two = house.host("store-2", {"relay": relay}, options=options)
    async with house.running(one, two):
        assert await one.call(survey) == "told"
        await until(lambda: len(puppet(two).seen) > 20)


async def test_a_damaged_journal_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    house, _ = memory_house(tmp_path)
    host = house.host("store-1")
    host._journal.close()
    (tmp_path / "store-1" / "journal.db").write_bytes(b"")
    with pytest.raises(JournalCorrupt, match="store-1"):
        house.host("store-1")
