"""Clients with API tokens: the administrator grants and revokes while they write and read.

Token ids are few and used again, tokens expire after seconds, and clients keep using what was
revoked. `rights_hold` is judged in the end, by an arithmetic of its own over the reference log.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from actors.calls import Read, ReadDone, Write, WriteDecided
from actors.messages import ReadReply, ReadRequest
from actors.principals import CreateLogin, RevokeLogin
from actors.state.namespace import Namespace
from actors.values import (
    AnyOperation,
    AnyValue,
    Batch,
    Command,
    CopyEntry,
    CreateToken,
    DeleteFile,
    Grant,
    Inline,
    MoveEntry,
    Outcome,
    Principal,
    PutFile,
    Refusal,
    RemoveDirectory,
    RevokeToken,
    Role,
    Transaction,
    Value,
)
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.rights_model import Pairs, RightsModel, leads_on, may, needed
from chaos.simulator.violation import Violation
from chaos.simulator.workload import Process, Workload
from chaos.simulator.world import World

_IDS = ("t1", "t2", "t3")
_PREFIXES = ("guarded", "guarded/a", "guarded/ab", "guarded/b")
_FILES = ("guarded/a/x", "guarded/a/y", "guarded/ab/x", "guarded/b/x")
_ROLES: tuple[Role, ...] = ("read", "write", "write", "admin", "operate")
_EXPIRIES_MS = (None, None, None, 5_000, 30_000)
_KNOWN_MAX = 6
_NOT_JUDGED = ("aborted", "busy", "too_large", "forgotten", "unknown_session")
"""Outcomes of commands whose rights were not looked at, or not all."""

_CLIENTS = 2
_VALUE: TypeAdapter[AnyValue] = TypeAdapter(Value)


class TokenClients:
    """The clients: each acts as the administrator or as the holder of a token."""

    stream = "rights"

    def __init__(self, world: World, workload: Workload) -> None:
        self._workload = workload
        self._rng = world.stream(self.stream)
        self._holders: list[Principal] = []
        """Tokens that were made, whether they still live or not."""
        self.done: list[tuple[int, int, Principal | None]] = []
        """The commands that are done, by their places in the log, and for whom."""
        self._slot = 0
        """The last slot of which a client knows."""
        for _ in range(_CLIENTS):
            workload.join().act = self._act

    def _act(self, process: Process) -> None:
        rng = self._rng
        draw = rng.random()
        if draw < 0.2 or not self._holders:
            self._create(process)
        elif draw < 0.3:
            self._write(process, RevokeToken(token=rng.choice(_IDS)), None)
        elif draw < 0.7:
            self._write(process, self._operation(), rng.choice(self._holders))
        else:
            self._read(process, rng.choice(self._holders))

    def _grants(self) -> tuple[Grant, ...]:
        rng = self._rng
        grants = []
        for _ in range(rng.randint(1, 2)):
            role = rng.choice(_ROLES)
            path = "" if role == "operate" else rng.choice(_PREFIXES)
            grants.append(Grant(role=role, path=path))
        return tuple(grants)

    def _create(self, process: Process) -> None:
        rng = self._rng
        made = CreateToken(
            grants=self._grants(),
            token=rng.choice(_IDS),
            sha256="",
            label="",
            expires_after_ms=rng.choice(_EXPIRIES_MS),
        )
        by = None
        if self._holders and rng.random() < 0.2:
            by = rng.choice(self._holders)
        self._write(process, made, by)

    def _operation(self) -> AnyOperation:
        rng = self._rng
        path, other = rng.sample(_FILES, 2)
        match rng.randrange(7):
            case 0 | 1:
                return self._put(path)
            case 2:
                return DeleteFile(path=path)
            case 3:
                return MoveEntry(source=path, target=other, overwrite=True)
            case 4:
                return CopyEntry(source=path, target=other, overwrite=True)
            case 5:
                return RemoveDirectory(path=rng.choice(_PREFIXES), recursive=True)
            case _:
                return Transaction(steps=(self._put(path), self._put(other)))

    def _put(self, path: str) -> PutFile:
        value = self._workload.new_value()
        data = value.encode()
        digest = hashlib.sha256(data).hexdigest()
        self._workload.digests[digest] = value
        return PutFile(path=path, content=Inline(sha256=digest, data=data))

    def _write(self, process: Process, operation: AnyOperation, by: Principal | None) -> None:
        process.doing = f"{operation.kind} with rights"

        def then(answer: Any) -> None:
            result = "failed"
            if isinstance(answer, WriteDecided):
                result = answer.outcome.status
                self._slot = max(self._slot, answer.outcome.slot)
                if result == "done":
                    self.done.append((answer.outcome.slot, answer.outcome.index, by))
                if result == "done":
                    self._learn(operation, answer.outcome)
            self._workload.end(process, result)

        self._workload.call(
            process, lambda token: Write(token=token, operation=operation, principal=by), then
        )

    def _learn(self, operation: AnyOperation, outcome: Outcome) -> None:
        """An operation is done."""
        if isinstance(operation, CreateToken):
            self._hold(Principal(token=operation.token, policy_slot=outcome.slot))

    def _hold(self, holder: Principal) -> None:
        """From now on commands and reads may be for this principal."""
        self._holders = [*self._holders[1 - _KNOWN_MAX :], holder]

    def _read(self, process: Process, by: Principal) -> None:
        rng = self._rng
        process.doing = "read with rights"
        stale = rng.random() < 0.3
        match rng.randrange(4):
            case 0:
                request = ReadRequest(number=0, what="list", path=rng.choice(("", *_PREFIXES)))
            case 1:
                request = ReadRequest(number=0, what="changes", at_least=max(1, self._slot - 9))
                stale = True
            case _:
                request = ReadRequest(number=0, what="entry", path=rng.choice(_FILES))
        update = {"principal": by, "consistency": "stale" if stale else "linearizable"}
        request = request.model_copy(update=update)

        def then(answer: Any) -> None:
            ok = isinstance(answer, ReadDone)
            self._workload.end(process, answer.reply.status if ok else "failed")

        self._workload.call(process, lambda token: Read(token=token, request=request), then)


class _Served(NamedTuple):
    """A store's answer to a principal, at one of the slots from `first` to `last`."""

    first: int
    last: int
    store: str
    request: ReadRequest
    reply: ReadReply


class RightsInvariants:
    """`rights_hold`: no command is applied, and no read answered, for a principal without the right
    at that slot; and none is refused to one that has it.
    """

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], ReadRequest] = {}
        self._served: list[_Served] = []
        self.counters: Counter[str] = Counter()

    def read_sent(self, machine: Machine, message: ReadRequest) -> None:
        """Note what a principal asks for."""
        if message.principal is not None:
            self._asked[machine.name, message.number] = message

    def read_served(self, machine: Machine, to: str, message: ReadReply) -> None:
        """Note a store's answer to a principal, whether it arrives or not."""
        request = self._asked.get((to, message.number))
        if request is not None and message.status != "not_served":
            applied = machine.actor.state.applied
            # Changes are told up to a slot, by the rights at the state that tells them.
            last = applied if request.what == "changes" else message.applied
            self._served.append(_Served(message.applied, last, machine.name, request, message))

    def check(self, log: ReferenceLog, done: Iterable[tuple[int, int, Principal | None]]) -> None:
        """Judge all commands and answers of the run, slot by slot. `done` are the places of
        commands that clients know to be done, and for whom.
        """
        for slot, index, principal in done:
            value = _VALUE.validate_json(log.chosen[slot])
            assert isinstance(value, Batch)
            if value.commands[index].principal != principal:
                raise Violation(
                    "rights_hold",
                    f"command {index} of slot {slot} was done for {principal}, and in the log it "
                    f"is {value.commands[index].principal}'s",
                )
        assert log.genesis is not None
        state = Namespace()
        state.begin(log.genesis)
        policy = RightsModel()
        judged = sorted(self._served, key=lambda one: one.first)
        waiting: list[_Served] = []
        for slot in range(log.chosen_through + 1):
            if slot:
                self._apply(state, slot, log, policy)
            while judged and judged[0].first <= slot:
                waiting.append(judged.pop(0))
            waiting = [one for one in waiting if not self._is_right(one, slot, policy, state)]

    def _apply(self, state: Namespace, slot: int, log: ReferenceLog, policy: RightsModel) -> None:
        value = _VALUE.validate_json(log.chosen[slot])
        aborted = tuple(Refusal(index=index, reason="") for index in log.aborted(slot))
        outcomes = state.apply(slot, value, aborted)
        state.tree.gained.clear()
        state.tree.dropped.clear()
        if not isinstance(value, Batch):
            return
        for index, (command, outcome) in enumerate(zip(value.commands, outcomes, strict=True)):
            if (outcome.slot, outcome.index) != (slot, index):
                continue  # A retry.
            self._judge(command, outcome.status, slot, policy, state.log_time_ms)
            if outcome.status == "done":
                policy.apply(command.operation, command.principal, (slot, index), state.log_time_ms)

    def _judge(
        self, command: Command, status: str, slot: int, policy: RightsModel, time_ms: int
    ) -> None:
        principal, operation = command.principal, command.operation
        if principal is None:
            if isinstance(operation, CreateLogin) and status in ("done", "unauthenticated"):
                self._judge_login(operation, status, slot, policy, time_ms)
            return
        grants = policy.grants_of(principal, time_ms)
        allowed = grants is not None and all(
            may(grants, role, path) for role, path in needed(operation, policy.acts_for(principal))
        )
        if isinstance(operation, RevokeToken):
            return
        if isinstance(operation, RevokeLogin) and status == "done":
            allowed = grants is not None and policy.may_revoke(operation.login, principal, grants)
        who = "tokens" if principal.user is None else "users"
        self.counters[f"rights.{who}_commands_{'allowed' if allowed else 'refused'}"] += 1
        if allowed != (status not in ("denied", "unauthenticated")) and status not in _NOT_JUDGED:
            raise Violation(
                "rights_hold",
                f"{command.request} of {principal} is {status} at slot {slot}, where it has the "
                f"grants {grants}: {operation.kind}",
            )

    def _judge_login(
        self, made: CreateLogin, status: str, slot: int, policy: RightsModel, time_ms: int
    ) -> None:
        current = policy.may_log_in(made, time_ms)
        self.counters[f"rights.logins_{'allowed' if current else 'refused'}"] += 1
        if current != (status == "done"):
            raise Violation(
                "rights_hold",
                f"a login of {made.user or made.token} by the secret {made.checked} is {status} "
                f"at slot {slot}",
            )

    def _is_right(self, one: _Served, slot: int, policy: RightsModel, state: Namespace) -> bool:
        """Whether the answer is right at this slot. Raises `Violation` if it is at none."""
        assert one.request.principal is not None
        grants = policy.grants_of(one.request.principal, state.log_time_ms)
        right = _answers_rightly(one.request, one.reply, grants)
        if right:
            served = one.reply.status not in ("denied", "unauthenticated")
            who = "tokens" if one.request.principal.user is None else "users"
            self.counters[f"rights.{who}_reads_{'allowed' if served else 'refused'}"] += 1
        elif slot >= one.last:
            raise Violation(
                "rights_hold",
                f"{one.store} answers {one.reply.status} to {one.request} at slot {slot}, where "
                f"the grants are {grants}",
            )
        return right


def _answers_rightly(request: ReadRequest, reply: ReadReply, grants: Pairs | None) -> bool:
    if grants is None:
        return reply.status == "unauthenticated"
    if reply.status == "unauthenticated":
        return False
    if request.what == "changes":
        allowed = leads_on(grants, "")
        shown = [change.path for change in reply.changes]
        shown += [change.source for change in reply.changes if change.source is not None]
    else:
        leads = request.what == "list" and leads_on(grants, request.path)
        allowed = may(grants, "read", request.path) or leads
        shown = [child.path for child in reply.children]
    if reply.status == "denied":
        return not allowed
    return allowed and all(may(grants, "read", path) or leads_on(grants, path) for path in shown)
