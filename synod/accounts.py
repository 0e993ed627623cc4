"""The calls of a client about tokens, users, groups and sessions."""

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from synod.entries import Written, written_of

_JSON = {"content-type": "application/json"}

Grants = Sequence[Mapping[str, str]]
"""Grants have the members `role` and `path`."""


class AccountCalls(ABC):
    """The calls; `AsyncClient` sends them."""

    async def whoami(self) -> dict[str, Any]:
        """Who the caller is, and what it may do. Raises `SynodError`."""
        return await self._item("GET", "/v1/whoami")

    # -- tokens ----------------------------------------------------------------------------------

    async def create_token(
        self,
        label: str,
        grants: Grants,
        *,
        expires_after_ms: int | None = None,
        groups: Iterable[str] = (),
    ) -> dict[str, Any]:
        """Make an API token; `token` of the answer is shown this once. Raises `SynodError`."""
        body: dict[str, Any] = {"label": label, "grants": _listed(grants)}
        if expires_after_ms is not None:
            body["expires_after_ms"] = expires_after_ms
        if groups := list(groups):
            body["groups"] = groups
        return self._made(await self._once("POST", "/v1/tokens", body))

    async def tokens(self) -> list[dict[str, Any]]:
        """The tokens that the caller may revoke. Raises `SynodError`."""
        return await self._pages("tokens")

    async def revoke_token(self, token: str) -> Written:
        """Revoke an API token by its id. Raises `SynodError`."""
        return await self._change("DELETE", "tokens", token)

    # -- users and groups ------------------------------------------------------------------------

    async def users(self) -> list[dict[str, Any]]:
        """The users that the caller may see. Raises `SynodError`."""
        return await self._pages("users")

    async def create_user(
        self,
        name: str,
        password: str | None = None,
        *,
        grants: Grants = (),
        groups: Iterable[str] = (),
    ) -> dict[str, Any]:
        """Make a user. Raises `SynodError`."""
        body: dict[str, Any] = {"name": name, "grants": _listed(grants), "groups": list(groups)}
        if password is not None:
            body["password"] = password
        return self._made(await self._once("POST", "/v1/users", body))

    async def change_user(
        self,
        name: str,
        *,
        grant: Grants = (),
        revoke: Grants = (),
        join: Iterable[str] = (),
        leave: Iterable[str] = (),
    ) -> Written:
        """Grant, revoke, join and leave groups, all or nothing. Raises `SynodError`."""
        body = {
            "grant": _listed(grant),
            "revoke": _listed(revoke),
            "join": list(join),
            "leave": list(leave),
        }
        return await self._change("PATCH", "users", name, body)

    async def set_password(self, name: str, password: str, *, current: str | None = None) -> None:
        """Set a user's password, which ends its sessions; for oneself with the `current` one.
        Raises `SynodError`.
        """
        body = {"password": password}
        if current is not None:
            body["current"] = current
        await self._once("PUT", f"/v1/users/{quote(name, safe='')}/password", body)

    async def remove_user(self, name: str) -> Written:
        """Remove a user. Raises `SynodError`."""
        return await self._change("DELETE", "users", name)

    async def groups(self) -> list[dict[str, Any]]:
        """The groups that the caller may see. Raises `SynodError`."""
        return await self._pages("groups")

    async def create_group(self, name: str, grants: Grants = ()) -> dict[str, Any]:
        """Make a group. Raises `SynodError`."""
        body = {"name": name, "grants": _listed(grants)}
        return self._made(await self._once("POST", "/v1/groups", body))

    async def change_group(self, name: str, *, grant: Grants = (), revoke: Grants = ()) -> Written:
        """Grant and revoke. Raises `SynodError`."""
        body = {"grant": _listed(grant), "revoke": _listed(revoke)}
        return await self._change("PATCH", "groups", name, body)

    async def remove_group(self, name: str) -> Written:
        """Remove a group. Raises `SynodError`."""
        return await self._change("DELETE", "groups", name)

    # -- sessions --------------------------------------------------------------------------------

    async def log_in(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        label: str = "",
    ) -> dict[str, Any]:
        """Begin a session for a user or for an API token; its `token` is to be sent from then on,
        and is shown this once. Raises `SynodError`.
        """
        body: dict[str, Any] = {"label": label, "bearer": True}
        given = {"user": user, "password": password, "token": token}
        body |= {name: value for name, value in given.items() if value is not None}
        return self._made(await self._once("POST", "/v1/login", body))

    async def log_out(self) -> None:
        """End the session of this client. Raises `SynodError`."""
        await self._once("POST", "/v1/logout", None)

    async def sessions(self) -> list[dict[str, Any]]:
        """The sessions that the caller may end. Raises `SynodError`."""
        return await self._pages("sessions")

    async def revoke_session(self, session: str) -> Written:
        """End a session by its id. Raises `SynodError`."""
        return await self._change("DELETE", "sessions", session)

    # -- sending ---------------------------------------------------------------------------------

    async def _pages(self, kind: str) -> list[dict[str, Any]]:
        """All items of a kind, page by page."""
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = await self._item("GET", f"/v1/{kind}", {"after": after})
            with self._understood():
                found += page[kind]
                after = page["next"]
        return found

    async def _change(
        self, method: str, kind: str, name: str, body: Mapping[str, Any] | None = None
    ) -> Written:
        url = f"/v1/{kind}/{quote(name, safe='')}"
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else dict(_JSON)
        return self._written(written_of, await self._write(method, url, headers, None, data))

    def _made(self, answer: httpx.Response) -> dict[str, Any]:
        with self._understood():
            made: dict[str, Any] = answer.json()
        return made

    @abstractmethod
    async def _once(self, method: str, url: str, json: Any) -> httpx.Response:
        """Send a request that must not be repeated."""

    @abstractmethod
    async def _item(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> dict[str, Any]:
        """The JSON object that is answered."""

    @abstractmethod
    async def _write(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        key: str | None,
        body: Any = None,
    ) -> httpx.Response:
        """Send a change, which is repeated under one key until its outcome is known."""

    @abstractmethod
    def _written(
        self, read: Callable[[httpx.Response], Written], answer: httpx.Response
    ) -> Written:
        """What a change did, read from its answer."""

    @abstractmethod
    def _understood(self) -> contextlib.AbstractContextManager[None]:
        """Within, an answer that is no JSON raises a `SynodError`."""


def _listed(grants: Grants) -> list[dict[str, str]]:
    return [dict(grant) for grant in grants]
