"""Clients below quotas, and `quotas_hold`, judged by an arithmetic of its own.

Quotas are small and change while files come, go, move and are copied below them.
"""

import hashlib
from collections import Counter
from typing import Any

from pydantic import TypeAdapter

from actors.calls import Write, WriteDecided
from actors.state.namespace import Namespace
from actors.values import (
    AnyOperation,
    AnyValue,
    Batch,
    CopyEntry,
    DeleteFile,
    FileEntry,
    Inline,
    MakeDirectory,
    MoveEntry,
    PutFile,
    Refusal,
    RemoveDirectory,
    RemoveQuota,
    SetQuota,
    Transaction,
    Value,
)
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.violation import Violation
from chaos.simulator.workload import Process, Workload
from chaos.simulator.world import World

_QUOTAS = ("bounded", "bounded/a", "bounded/ab")
_FOLDERS = ("bounded/a", "bounded/a/deep", "bounded/ab", "free")
_VALUE: TypeAdapter[AnyValue] = TypeAdapter(Value)


class QuotaClient:
    """A client that sets quotas, and writes below them."""

    def __init__(self, world: World, workload: Workload) -> None:
        self._workload = workload
        self._rng = world.stream("quotas")
        workload.join().act = self._act

    def _act(self, process: Process) -> None:
        operation = self._operation()
        process.doing = f"{operation.kind} below quotas"

        def then(answer: Any) -> None:
            decided = isinstance(answer, WriteDecided)
            self._workload.end(process, answer.outcome.status if decided else "failed")

        self._workload.call(process, lambda token: Write(token=token, operation=operation), then)

    def _operation(self) -> AnyOperation:
        rng = self._rng
        path, other = self._path(), self._path()
        match rng.randrange(12):
            case 0 | 1:
                entries = rng.choice((None, 0, 3, 6))
                most = rng.choice((40, 90, 200)) if entries is None else rng.choice((None, 90))
                return SetQuota(path=rng.choice(_QUOTAS), entries_max=entries, bytes_max=most)
            case 2:
                return RemoveQuota(path=rng.choice(_QUOTAS))
            case 3:
                return DeleteFile(path=path)
            case 4:
                return MoveEntry(source=path, target=other, overwrite=True)
            case 5:
                folders = rng.sample(_FOLDERS, 2)
                return MoveEntry(source=folders[0], target=f"{folders[1]}/moved{rng.randrange(3)}")
            case 6:
                return CopyEntry(source=path, target=other, overwrite=True)
            case 7:
                return RemoveDirectory(path=rng.choice(_FOLDERS), recursive=True)
            case 8:
                return MakeDirectory(path=f"{path}-made")
            case 9:
                return Transaction(steps=(self._put(path), self._put(other)))
            case _:
                return self._put(path)

    def _path(self) -> str:
        return f"{self._rng.choice(_FOLDERS)}/{self._rng.randrange(4)}"

    def _put(self, path: str) -> PutFile:
        value = self._workload.new_value() * self._rng.randint(1, 4)
        data = value.encode()
        digest = hashlib.sha256(data).hexdigest()
        self._workload.digests[digest] = value
        return PutFile(path=path, content=Inline(sha256=digest, data=data))


class QuotaInvariants:
    """`quotas_hold`: after no slot does more lie below a path than its quota allows, unless it is
    no more than before; and what replicas count is what is there.
    """

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()

    def check(self, world: World, log: ReferenceLog) -> None:
        """Judge all commands of the run, and the counts of all replicas in the end."""
        assert log.genesis is not None
        state = Namespace()
        state.begin(log.genesis)
        quotas: dict[str, SetQuota] = {}
        before = _used(state)
        for slot in range(1, log.chosen_through + 1):
            value = _VALUE.validate_json(log.chosen[slot])
            aborted = tuple(Refusal(index=index, reason="") for index in log.aborted(slot))
            outcomes = state.apply(slot, value, aborted)
            state.tree.gained.clear()
            state.tree.dropped.clear()
            if not isinstance(value, Batch):
                continue
            after = _used(state) if quotas else before
            done = [
                command.operation
                for index, (command, outcome) in enumerate(
                    zip(value.commands, outcomes, strict=True)
                )
                if outcome.status == "done" and (outcome.slot, outcome.index) == (slot, index)
            ]
            changed = [op for op in done if isinstance(op, SetQuota | RemoveQuota)]
            if not changed:
                self._judge(slot, quotas, before, after)
            for outcome in outcomes:
                self.counters["quotas.refused"] += outcome.status == "over_quota"
            for operation in changed:
                if isinstance(operation, SetQuota):
                    quotas[operation.path] = operation
                else:
                    quotas.pop(operation.path)
            before = _used(state) if quotas else {}
        for machine in world.up("learner", "store"):
            self._check_counts(machine.name, machine.actor.state)

    def _judge(
        self,
        slot: int,
        quotas: dict[str, SetQuota],
        before: dict[str, tuple[int, int]],
        after: dict[str, tuple[int, int]],
    ) -> None:
        """All commands of a slot together: in it, one may free what another uses."""
        for path, quota in quotas.items():
            now, then = after.get(path, (0, 0)), before.get(path, (0, 0))
            for used, former, most in zip(
                now, then, (quota.entries_max, quota.bytes_max), strict=True
            ):
                self.counters["quotas.judged"] += 1
                if most is not None and used > max(most, former):
                    raise Violation(
                        "quotas_hold",
                        f"slot {slot}: {now} lie below {path!r}, where {quota} allows less, and "
                        f"before it {then} did",
                    )

    def _check_counts(self, name: str, state: Namespace) -> None:
        expected = _used(state)
        for path in {*expected, *_QUOTAS, ""}:
            if tuple(state.tree.used(path)) != expected.get(path, (0, 0)):
                raise Violation(
                    "quotas_hold",
                    f"{name} counts {state.tree.used(path)} below {path!r}, where "
                    f"{expected.get(path, (0, 0))} are",
                )


def _used(state: Namespace) -> dict[str, tuple[int, int]]:
    """What lies below each directory, counted anew."""
    found: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for path, entry in state.entries.items():
        names = path.split("/")
        for depth in range(len(names)):
            above = "/".join(names[:depth])
            found[above] += 1
            if isinstance(entry, FileEntry):
                sizes[above] += entry.content.size
    return {path: (count, sizes[path]) for path, count in found.items()}
