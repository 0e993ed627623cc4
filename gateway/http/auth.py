"""Authentication by the setting `token`: as a bearer token, or by the cookie that a browser got for
it. Tokens and sessions of the replicated state: `gateway.http.credentials`.

Without a configured token `gateway.settings` allows HTTP on loopback only, and every request for a
loopback name is admitted: a web page can make its own name resolve to 127.0.0.1, but the browser
still sends that name as `Host`. With or without a token, no page of another origin can change
anything. The cookie is not the token and scripts can't read it; it ends when the token changes.
"""

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Iterator
from html import escape
from http.cookies import CookieError, SimpleCookie

from pydantic import SecretStr
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.http.auth_limits import TokenAttemptLimits
from gateway.http.origins import is_foreign, is_loopback_name
from gateway.http.problems import (
    FOREIGN_ORIGIN,
    MISDIRECTED,
    TOO_MANY_REQUESTS,
    UNAUTHORIZED,
    Problem,
)

COOKIE = "synod_session"
TLS_COOKIE = f"__Host-{COOKIE}"
"""Its name under TLS: a browser takes it over https only, for this host and no other (RFC 6265bis,
section 4.1.3.2), so no neighbour and nobody on the way can plant one.
"""
PUBLIC_PATHS = frozenset(("/healthz", "/readyz", "/v1/login"))
"""Served without authentication: they reveal the health of the process and no contents."""

OnRejected = Callable[[str], None]
"""Receives the reason why a request was not admitted."""

_CHANGES_NOTHING = frozenset(("GET", "HEAD", "OPTIONS"))
_READ = frozenset((b"host", b"origin", b"sec-fetch-site", b"authorization", b"cookie", b"accept"))
_LOGINS_AT_ONCE = 8
"""Logins of one address at a time."""

_PAGE_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    # Under `no-referrer` a browser would send the form with `Origin: null`.
    "referrer-policy": "same-origin",
}

_COOKIE_AGE_S = 30 * 24 * 3600
_CHALLENGE = {"www-authenticate": 'Bearer realm="synod"'}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Synod: log in</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 24em; margin: 15vh auto; padding: 0 1em }
  input, button { font: inherit; padding: .4em .6em; width: 100%; box-sizing: border-box }
  button { margin-top: .8em } label { display: block; margin-top: .6em }
  .wrong { color: #c33 } :root { color-scheme: light dark }
</style>
<h1>Synod</h1>
<!-- wrong -->
<form method="post" action="/v1/login">
  <label for="user">User</label>
  <input id="user" name="user" autocomplete="username" required autofocus>
  <label for="password">Password</label>
  <input id="password" name="password" type="password" autocomplete="current-password" required>
  <button>Log in</button>
</form>
<p>Or with a token: of this gateway's setting <code>token</code> (<code>SYNOD_TOKEN</code>; with
Docker Compose it is in <code>.env</code>), or one of <code>synod token create</code>.</p>
<form method="post" action="/v1/login">
  <label for="token">Token</label>
  <input id="token" name="token" type="password" autocomplete="off" required>
  <button>Open</button>
</form>
</html>
"""


class Authenticator:
    """Checks requests against one token, in constant time."""

    def __init__(
        self,
        token: SecretStr | None,
        rejected: OnRejected | None = None,
        attempt_limits: TokenAttemptLimits | None = None,
        *,
        tls: bool = False,
    ) -> None:
        """`tls`: all browsers come by TLS, as the settings say; no request's header is asked."""
        value = token.get_secret_value() if token is not None else ""
        self._digest = _digest(value) if value else b""
        self._cookie = (
            hmac.new(value.encode(), b"synod cookie", hashlib.sha256).hexdigest() if value else ""
        )
        self._tls = tls
        self._cookie_name = TLS_COOKIE if tls else COOKIE
        self._rejected = rejected or (lambda reason: None)
        self._attempt_limits = attempt_limits or TokenAttemptLimits()
        self._logins: dict[str, int] = {}

    def check(self, scope: Scope) -> Response | None:
        """Returns `None` to admit a request, or the login page for a browser. Raises `Problem`."""
        fields = self.check_source(scope)
        if not self._digest or scope["path"] in PUBLIC_PATHS:
            return None
        address = address_of(scope)
        if self._has_token(fields.get(b"authorization", b""), address) or self._has_cookie(
            fields.get(b"cookie", b"")
        ):
            return None
        self._rejected("token")
        if scope["method"] == "GET" and b"text/html" in fields.get(b"accept", b""):
            return self.page("")
        raise Problem(
            UNAUTHORIZED,
            "this gateway requires its token: Authorization: Bearer … (SYNOD_TOKEN for the synod "
            "command)",
            headers=_CHALLENGE,
        )

    def check_source(self, scope: Scope) -> dict[bytes, bytes]:
        """Check the name and the origin of a request, whoever sent it; returns the headers that say
        more about it. Raises `Problem`.
        """
        fields: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _READ:
                fields[name] = fields[name] + b", " + value if name in fields else value
        if not self._digest:
            self._check_name(fields)
        if scope["method"] not in _CHANGES_NOTHING:
            self._check_origin(fields)
        return fields

    def _check_name(self, fields: dict[bytes, bytes]) -> None:
        host = fields.get(b"host")
        # Every browser sends a Host header; a program that speaks HTTP/1.0 may not.
        if host is None or is_loopback_name(host.decode("latin-1")):
            return
        self._rejected("host")
        raise Problem(
            MISDIRECTED,
            f"without a token only loopback names are served, as http://localhost, and not "
            f"{host[:80].decode('latin-1')!a}; nothing was changed. Set a token (SYNOD_TOKEN) to "
            "be reached by other names",
        )

    def _check_origin(self, fields: dict[bytes, bytes]) -> None:
        if b"origin" not in fields and b"sec-fetch-site" not in fields:
            return  # The request does not come from a browser.
        page, about, host = (
            fields.get(name, b"").decode("latin-1")
            for name in (b"origin", b"sec-fetch-site", b"host")
        )
        if not is_foreign(page, about, host):
            return
        self._rejected("origin")
        raise Problem(
            FOREIGN_ORIGIN,
            f"a page of another origin sent this ({(page or about)[:80]!a}); nothing was changed. "
            "Behind a proxy, have it pass the Host header on",
        )

    def admits(self, token: str, address: str) -> bool:
        """Whether `token` is that of the settings, or there is none. Raises `Problem`."""
        return not self._digest or self._matches(token, address)

    def set_cookie(self, response: Response, value: str = "", age_s: int = _COOKIE_AGE_S) -> None:
        """Have the browser keep a session, or that of the administrator, as a cookie."""
        if not value and not self._digest:
            return
        response.set_cookie(
            self._cookie_name,
            value or self._cookie,
            max_age=age_s,
            httponly=True,
            samesite="strict",
            secure=self._tls,
        )

    def delete_cookie(self, response: Response) -> None:
        """Have the browser forget the cookie."""
        response.delete_cookie(
            self._cookie_name, httponly=True, samesite="strict", secure=self._tls
        )

    def session_in(self, scope: Scope) -> str | None:
        """The session of the replicated state that a request's cookie is, if it is one."""
        cookies = [value for name, value in scope["headers"] if name == b"cookie"]
        value = self._cookie_in(b"; ".join(cookies)) if cookies else ""
        return value if value.startswith("syn_") else None

    def page(
        self, wrong: str, status: int = 401, headers: dict[str, str] | None = None
    ) -> Response:
        """The login page, with the error of the last attempt."""
        said = f'<p class="wrong" role="alert">{escape(wrong)}</p>' if wrong else ""
        return HTMLResponse(
            _PAGE.replace("<!-- wrong -->", said),
            status_code=status,
            headers={**_PAGE_HEADERS, **(_CHALLENGE if headers is None else headers)},
        )

    @contextlib.contextmanager
    def login_slot(self, address: str) -> Iterator[None]:
        """Holds a slot while a login's body arrives and its password is checked: anybody may make
        the gateway wait for the one, and work for the other.
        """
        under_way = self._logins.get(address, 0)
        if under_way >= _LOGINS_AT_ONCE:
            self._rejected("guesses")
            raise Problem(
                TOO_MANY_REQUESTS,
                f"{under_way} logins of this address are under way",
                headers={"retry-after": "1"},
            )
        self._logins[address] = under_way + 1
        try:
            yield
        finally:
            self._logins[address] -= 1
            if not self._logins[address]:
                del self._logins[address]

    def _has_token(self, authorization: bytes, address: str) -> bool:
        scheme, _, token = authorization.partition(b" ")
        return scheme.lower() == b"bearer" and self._matches(
            token.strip().decode("latin-1"), address
        )

    def _has_cookie(self, cookie: bytes) -> bool:
        value = self._cookie_in(cookie)
        return bool(value) and hmac.compare_digest(value.encode(), self._cookie.encode())

    def _cookie_in(self, cookie: bytes) -> str:
        """The value of the cookie; empty if there is none."""
        try:
            morsel = SimpleCookie(cookie.decode("latin-1")).get(self._cookie_name)
        except CookieError:
            return ""
        return "" if morsel is None else morsel.value

    def _matches(self, token: str, address: str) -> bool:
        """Whether `token` is right. Raises `Problem` if it is not and `address` tried too many."""
        digest = _digest(token)
        # Digests have equal lengths, so the time does not depend on the token's length either.
        if hmac.compare_digest(digest, self._digest):
            # Others may share the address of one who guesses, behind a proxy for instance.
            return True
        if wait_s := self._attempt_limits.wait_s(address):
            self._rejected("guesses")
            raise Problem(
                TOO_MANY_REQUESTS,
                f"too many wrong tokens came from this address; wait {wait_s} s",
                headers={"retry-after": str(wait_s)},
            )
        self._attempt_limits.wrong(address, digest)
        return False


class AuthMiddleware:
    """An ASGI application that serves only authenticated requests."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI."""
        if scope["type"] == "http":
            try:
                answer = self._authenticator.check(scope)
            except Problem as problem:
                answer = problem.response()
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def address_of(scope: Scope) -> str:
    """The address that a request came from; empty if it is not known."""
    client = scope.get("client")
    return client[0] if client else ""
