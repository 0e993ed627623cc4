"""Routes that end with a path of the file system, decoded from the raw bytes of the URL."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from gateway.http.problems import INVALID_PATH, METHOD_NOT_ALLOWED, NOT_FOUND, Problem
from synod.paths import InvalidPath, path_from_url

Endpoint = Callable[[str, Scope, Receive, Send], Awaitable[None]]
"""An endpoint that serves one method for a path of the file system."""


class PathRoute(BaseRoute):
    """`/prefix/{path}`, where the path is decoded once and by Synod's own rules.

    Starlette's own routes match the decoded path, in which `%2F` is a slash already.
    """

    def __init__(self, prefix: str, endpoints: Mapping[str, Endpoint], name: str) -> None:
        self.name = name
        self.path = f"{prefix}/{{path}}"
        self.methods = set(endpoints)
        self._bare = prefix.encode()
        self._prefix = self._bare + b"/"
        self._endpoints = dict(endpoints)
        self._allow = ", ".join(sorted(endpoints))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the raw path starts with the prefix."""
        raw: bytes = scope.get("raw_path") or b""
        if scope["type"] == "http" and (raw.startswith(self._prefix) or raw == self._bare):
            return Match.FULL, {"endpoint": self.name}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decode the path and call the method's endpoint. Raises `Problem`."""
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is None:
            raise method_not_allowed(scope["method"], self._allow)
        raw: bytes = scope["raw_path"]
        try:
            path = path_from_url(raw[len(self._prefix) :])
        except InvalidPath as error:
            raise Problem(INVALID_PATH, f"{error}") from None
        await endpoint(path, scope, receive, send)


def method_not_allowed(method: str, allow: str) -> Problem:
    """The problem of a method that a route does not have."""
    return Problem(METHOD_NOT_ALLOWED, f"{method} is not one of {allow}", headers={"allow": allow})


def no_such_route(path: Any) -> Problem:
    """The problem of a URL without a route."""
    return Problem(NOT_FOUND, f"the gateway serves nothing at {path!a}; see / for what there is")
