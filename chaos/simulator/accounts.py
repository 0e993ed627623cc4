"""Clients that act for users: groups, passwords and logins change while they write and read.

Names are few and used again, so that clients of a former user, group or login meet a later one of
the same name. `rights_hold` judges all of it (`chaos.simulator.rights`).
"""

from actors.principals import (
    ChangeGroup,
    ChangeUser,
    CreateGroup,
    CreateLogin,
    CreateUser,
    RefreshLogin,
    RemoveGroup,
    RemoveUser,
    RevokeLogin,
)
from actors.values import AnyOperation, CreateToken, Outcome, Principal
from chaos.simulator.rights import TokenClients
from chaos.simulator.workload import Process, Workload
from chaos.simulator.world import World

_USERS = ("u1", "u2")
_GROUPS = ("g1", "g2")
_LOGINS = ("l1", "l2", "l3")
_TOKEN = "t9"
_IDLE_MS = (4_000, 20_000, 20_000)
_EXPIRIES_MS = (8_000, 60_000, 60_000)


class AccountClients(TokenClients):
    """The clients: each acts as the administrator, or as one that has logged in."""

    stream = "accounts"

    def __init__(self, world: World, workload: Workload) -> None:
        super().__init__(world, workload)
        self._secrets: dict[str, str] = {}
        """The versions of passwords and tokens that a gateway may have checked, the last one that a
        client knows of each; it need not be in force.
        """

    def _act(self, process: Process) -> None:
        rng = self._rng
        draw = rng.random()
        if draw < 0.2 or not self._secrets:
            self._write(process, self._change(), self._sometimes_somebody())
        elif draw < 0.35 or not self._holders:
            self._log_in(process)
        elif draw < 0.42:
            self._end(process)
        elif draw < 0.72:
            self._write(process, self._operation(), rng.choice(self._holders))
        else:
            self._read(process, rng.choice(self._holders))

    def _sometimes_somebody(self) -> Principal | None:
        rng = self._rng
        return rng.choice(self._holders) if self._holders and rng.random() < 0.25 else None

    def _change(self) -> AnyOperation:
        """A change of users and groups."""
        rng = self._rng
        user, group = rng.choice(_USERS), rng.choice(_GROUPS)
        match rng.randrange(9):
            case 0 | 1:
                groups = tuple(rng.sample(_GROUPS, rng.randint(0, 2)))
                return CreateUser(user=user, password="x", grants=self._grants(), groups=groups)
            case 2:
                return ChangeUser(user=user, password="y")
            case 3:
                return ChangeUser(user=user, grant=self._grants(), join=(group,))
            case 4:
                return ChangeUser(user=user, leave=(group,))
            case 5:
                return RemoveUser(user=user)
            case 6:
                return CreateGroup(group=group, grants=self._grants())
            case 7:
                return ChangeGroup(group=group, grant=self._grants())
            case _:
                return RemoveGroup(group=group)

    def _log_in(self, process: Process) -> None:
        rng = self._rng
        if rng.random() < 0.2:
            made = CreateToken(token=_TOKEN, sha256="", label="", grants=self._grants())
            self._write(process, made, None)
            return
        name = rng.choice(sorted(self._secrets))
        login = CreateLogin(
            login=rng.choice(_LOGINS),
            sha256="",
            label="",
            user=None if name == _TOKEN else name,
            token=_TOKEN if name == _TOKEN else None,
            checked=self._secrets[name],
            idle_ms=rng.choice(_IDLE_MS),
            expires_after_ms=rng.choice(_EXPIRIES_MS),
        )
        self._write(process, login, None)

    def _end(self, process: Process) -> None:
        rng = self._rng
        if rng.random() < 0.5:
            self._write(process, RefreshLogin(), rng.choice(self._holders))
        else:
            by = self._sometimes_somebody()
            self._write(process, RevokeLogin(login=rng.choice(_LOGINS)), by)

    def _learn(self, operation: AnyOperation, outcome: Outcome) -> None:
        match operation:
            case CreateUser(user=user):
                self._secrets[user] = outcome.etag
            case ChangeUser(user=user) if operation.password is not None:
                self._secrets[user] = outcome.etag
            case CreateToken(token=token):
                self._secrets[token] = str(outcome.slot)
            case CreateLogin() as made:
                slot = outcome.slot
                self._hold(Principal(token=made.login, policy_slot=slot, user=made.user))
