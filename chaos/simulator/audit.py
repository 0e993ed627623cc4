"""`audit_follows_from_the_log` and `audit_is_got_back`: the records that learners keep and send.

What the records must say is computed here from the reference log, by an arithmetic of its own; only
the outcomes of commands are those of the state machine.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from actors.calls import ReadAudit
from actors.messages import AuditPage, AuditRead
from actors.state.namespace import Namespace
from actors.values import NO_ROOM, AnyValue, Batch, Outcome, Refusal, Value
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.violation import Violation
from chaos.simulator.workload import Process, Workload
from chaos.simulator.world import World

_VALUE: TypeAdapter[AnyValue] = TypeAdapter(Value)


class AuditReader:
    """A client that reads the audit from its beginning, page by page, and follows it."""

    def __init__(self, world: World, workload: Workload) -> None:
        self._workload = workload
        self._rng = world.stream("audit")
        self._after = 0
        workload.join().act = self._act

    def _act(self, process: Process) -> None:
        process.doing = "read the audit"
        after = self._after if self._rng.random() < 0.8 else 0
        request = AuditRead(number=0, after=after, limit=self._rng.choice((1, 20, 1_000)))

        def then(answer: Any) -> None:
            is_page = isinstance(answer, AuditPage)
            if is_page:
                self._after = answer.through
            self._workload.end(process, "read" if is_page else "failed")

        self._workload.call(process, lambda token: ReadAudit(token=token, request=request), then)


class AuditInvariants:
    """What learners have sent of the audit, and what they keep in the end."""

    def __init__(self) -> None:
        self._sent: dict[int, tuple[str, str]] = {}
        """For each number the hash under which a record was sent, and the first sender."""
        self.counters: Counter[str] = Counter()

    def page_sent(self, machine: Machine, message: AuditPage) -> None:
        """No two learners send different records under one number."""
        for record in message.records:
            number = json.loads(record.text)["number"]
            hash, sender = self._sent.setdefault(number, (record.hash, machine.name))
            if record.hash != hash:
                raise Violation(
                    "audit_follows_from_the_log",
                    f"record {number} has the hash {record.hash} at {machine.name}, and {sender} "
                    f"has sent {hash}",
                )
            self.counters["audit.records_sent"] += 1

    def check(self, world: World, log: ReferenceLog) -> None:
        """Judge all records that were sent, and those that learners keep."""
        assert log.genesis is not None
        expected = list(_records(log)) if log.genesis.constants.audit else []
        hashes = [""]
        for record in expected:
            text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            hashes.append(hashlib.sha256(f"{hashes[-1]}\n{text}".encode()).hexdigest())
        for number, (hash, sender) in self._sent.items():
            if number >= len(hashes) or hash != hashes[number]:
                raise Violation(
                    "audit_follows_from_the_log",
                    f"{sender} has sent record {number} with the hash {hash}; the log makes "
                    f"{expected[number - 1] if number < len(hashes) else 'none'}",
                )
        for machine in world.up("learner", "store"):
            chain = machine.actor.state.audit
            if (chain.count, chain.head) != (len(expected), hashes[-1]):
                raise Violation(
                    "audit_follows_from_the_log",
                    f"the chain of {machine.name} has {chain.count} records and ends with "
                    f"{chain.head!r}; the log makes {len(expected)} and {hashes[-1]!r}",
                )
        for machine in world.up("learner"):
            self._check_kept(machine, expected, hashes)
        self._check_got_back(world.up("learner"))

    def _check_kept(
        self, machine: Machine, expected: list[dict[str, Any]], hashes: list[str]
    ) -> None:
        audit = machine.actor.audit
        kept = list(audit.ascending(0))
        if [one.number for one in kept] != list(range(audit.first, audit.count + 1)):
            raise Violation(
                "audit_follows_from_the_log",
                f"{machine.name} says that it keeps the records from {audit.first} to "
                f"{audit.count}, and has {len(kept)}",
            )
        for one in kept:
            about = json.loads(one.line)
            if about != expected[one.number - 1] or one.hash != hashes[one.number]:
                raise Violation(
                    "audit_follows_from_the_log",
                    f"{machine.name} keeps {about} under {one.number}, hash {one.hash}; the log "
                    f"makes {expected[one.number - 1]}, hash {hashes[one.number]}",
                )
        self.counters["audit.records_kept"] += len(kept)

    def _check_got_back(self, learners: list[Machine]) -> None:
        """What one learner keeps, all do: nothing is so much here that it would be forgotten."""
        firsts = {machine.name: machine.actor.audit.first for machine in learners}
        if len(set(firsts.values())) > 1:
            raise Violation("audit_is_got_back", f"the learners keep records from {firsts} on")


def is_copied(world: World) -> bool:
    """Whether no learner is still copying records, and all keep the same: they ask each other again
    from time to time.
    """
    audits = [machine.actor for machine in world.up("learner")]
    firsts = {learner.audit.first for learner in audits}
    return len(firsts) <= 1 and not any(learner.audit_copy.busy for learner in audits)


def _about_change(
    number: int, slot: int, log_time_ms: int, change: dict[str, Any]
) -> dict[str, Any]:
    """The record of a Members, a Settled or a Roster that counts."""
    operation, more = {
        "members": ("change_acceptors", "acceptors"),
        "settled": ("settle_acceptors", ""),
        "roster": ("change_roster", "members"),
    }[change["kind"]]
    names = change.get(more, ())
    if more == "acceptors":
        names = [[acceptor["name"], acceptor["disk"]] for acceptor in names]
    return {
        "number": number,
        "slot": slot,
        "index": 0,
        "log_time_ms": log_time_ms,
        "principal": change.get("principal"),
        "operation": operation,
        "version": change["version"],
        **({more: names} if more else {}),
        "result": "done",
        "request": "",
    }


def _records(log: ReferenceLog) -> Iterator[dict[str, Any]]:
    """The records that the log makes."""
    assert log.genesis is not None
    state = Namespace()
    state.begin(log.genesis)
    number = 0
    for slot in range(1, log.chosen_through + 1):
        value = _VALUE.validate_json(log.chosen[slot])
        aborted = tuple(
            Refusal(index=index, reason=NO_ROOM if log.is_full(slot, index) else "")
            for index in log.aborted(slot)
        )
        outcomes = state.apply(slot, value, aborted)
        state.tree.gained.clear()
        state.tree.dropped.clear()
        if slot in log.changes:
            number += 1
            yield _about_change(number, slot, state.log_time_ms, log.changes[slot])
        if not isinstance(value, Batch):
            continue
        raw = json.loads(log.chosen[slot])["commands"]
        for index, (command, outcome) in enumerate(zip(raw, outcomes, strict=True)):
            place = {"slot": slot, "index": index}
            for step in _steps(command, outcome, place, state.log_time_ms):
                number += 1
                yield {"number": number, **step}


def _steps(
    command: dict[str, Any], outcome: Outcome, place: dict[str, int], log_time_ms: int
) -> Iterator[dict[str, Any]]:
    operation = command["operation"]
    who = None
    if "principal" in command:
        principal = command["principal"]
        who = f"@{principal['user']}" if "user" in principal else principal["token"]
    for number, step in enumerate(operation.get("steps", (operation,))):
        record: dict[str, Any] = dict(place)
        if operation["kind"] == "transaction":
            record["step"] = number
        record |= {"log_time_ms": log_time_ms, "principal": who, "operation": step["kind"]}
        match step["kind"]:
            case "move" | "copy":
                record |= {"path": step["target"], "source": step["source"]}
            case "create_token":
                record |= {"token": step["token"], "grants": _pairs(step["grants"])}
                record |= {"groups": step["groups"]} if step.get("groups") else {}
            case "create_user" | "change_user" | "remove_user":
                record |= {"user": step["user"], **_rights_in(step)}
            case "create_group" | "change_group" | "remove_group":
                record |= {"group": step["group"], **_rights_in(step)}
            case "create_login" | "revoke_login":
                holder = {key: step[key] for key in ("token", "user") if step.get(key) is not None}
                record |= {"login": step["login"], **holder}
            case "revoke_token":
                record["token"] = step["token"]
            case "close_session":
                record["session"] = step["target"]
            case "open_session" | "refresh_login":
                pass
            case _:
                record["path"] = step["path"]
        record["result"] = outcome.status
        if (outcome.slot, outcome.index) != (place["slot"], place["index"]):
            record["first"] = f"{outcome.slot}-{outcome.index}"
        record["request"] = f"{command['session']}-{command['sequence']}"
        yield record


_RIGHTS = {
    "grants": "grants",
    "grant": "grants",
    "revoke": "revoked",
    "groups": "groups",
    "join": "joined",
    "leave": "left",
}
"""For fields of a change of users and groups those of its record; empty ones are left out."""


def _rights_in(step: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, name in _RIGHTS.items():
        if step.get(field):
            found[name] = _pairs(step[field]) if name in ("grants", "revoked") else step[field]
    return found | ({} if step.get("password") is None else {"new_password": True})


def _pairs(grants: list[dict[str, str]]) -> list[list[str]]:
    return [[grant["role"], grant["path"]] for grant in grants]
