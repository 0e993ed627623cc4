"""RabbitMQ's management API, as far as `synod broker init` needs it."""

from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from broker.definitions import Definitions
from broker.tls import BrokerTls, refusal_of

_TIMEOUT = httpx.Timeout(300.0, connect=10.0)
"""On a busy disk RabbitMQ takes a good part of a second for each thing that it is to make."""


class ManagementRefused(RuntimeError):
    """The API did not do it; the text says why, and what to do."""


class ManagementApi:
    """A client of the API at one address, as an administrator."""

    def __init__(self, address: str, user: str, password: str, tls: BrokerTls) -> None:
        self._address = address.rstrip("/")
        self._client = httpx.Client(
            auth=(user, password),
            timeout=_TIMEOUT,
            trust_env=False,
            verify=tls.context() if address.startswith("https:") else False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def import_definitions(self, definitions: Definitions) -> None:
        """Make what is missing, and set passwords and permissions. Raises `ManagementRefused`."""
        self._ask("POST", "/api/definitions", json=definitions)

    def users(self) -> set[str]:
        """The names of all users. Raises `ManagementRefused`."""
        return {str(user["name"]) for user in self._ask("GET", "/api/users").json()}

    def delete_user(self, name: str) -> None:
        """Delete a user; RabbitMQ closes its connections. Raises `ManagementRefused`."""
        self._ask("DELETE", f"/api/users/{quote(name, safe='')}")

    def _ask(self, method: str, path: str, *, json: Any = None) -> httpx.Response:
        try:
            answer = self._client.request(method, f"{self._address}{path}", json=json)
        except httpx.HTTPError as error:
            raise ManagementRefused(
                f"nothing answers at {self._address}: {refusal_of(error) or error}. Name "
                "RabbitMQ's management API with --management, or write a file with --definitions"
            ) from error
        if answer.status_code == 401:
            raise ManagementRefused(
                f"{self._address} needs a user with the tag `administrator`: {answer.text[:200]}"
            )
        if not answer.is_success:
            raise ManagementRefused(
                f"{self._address}{path} answered {answer.status_code}: {answer.text[:500]}"
            )
        return answer
