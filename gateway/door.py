"""Who may come in: a bearer token, or the cookie that a browser got for it.

Without a token configured the door is open, and `gateway.settings` lets HTTP be served on loopback
only. The cookie is not the token and scripts can't read it; it ends when the token changes.
"""

import hashlib
import hmac
import json
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.fields import header_fields
from gateway.looking import bounded_body
from gateway.problems import INVALID_REQUEST, UNAUTHORIZED, Problem

COOKIE = "synod_session"
OPEN_PATHS = frozenset(("/healthz", "/readyz", "/v1/login"))
"""What is served to everybody: whether the process is well says nothing of what it holds."""

_COOKIE_AGE_S = 30 * 24 * 3600
_CHALLENGE = {"www-authenticate": 'Bearer realm="synod"'}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Synod: token</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 24em; margin: 15vh auto; padding: 0 1em }
  input, button { font: inherit; padding: .4em .6em; width: 100%; box-sizing: border-box }
  button { margin-top: .8em } .wrong { color: #c33 } :root { color-scheme: light dark }
</style>
<h1>Synod</h1>
<p>This gateway wants a token. It is the setting <code>token</code> (<code>SYNOD_TOKEN</code>; with
Docker Compose it stands in <code>.env</code>).</p>
<!-- wrong -->
<form method="post" action="/v1/login">
  <label for="token">Token</label>
  <input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
  <button>Open</button>
</form>
</html>
"""


class Door:
    """Checks requests against one token, in a time that does not tell how much of it is right."""

    def __init__(self, token: SecretStr | None) -> None:
        value = token.get_secret_value() if token is not None else ""
        self._digest = _digest(value) if value else b""
        self._cookie = (
            hmac.new(value.encode(), b"synod cookie", hashlib.sha256).hexdigest() if value else ""
        )

    def check(self, scope: Scope) -> Response | None:
        """Let a request in; or the page that asks a person for the token. Raises `Problem`."""
        if not self._digest or scope["path"] in OPEN_PATHS:
            return None
        fields = header_fields(scope)
        if self._bears(fields.get("authorization", "")) or self._knows(fields.get("cookie", "")):
            return None
        if scope["method"] == "GET" and "text/html" in fields.get("accept", ""):
            return self.page(wrong=False)
        raise Problem(
            UNAUTHORIZED,
            "this gateway wants its token: Authorization: Bearer … (SYNOD_TOKEN for the synod "
            "command)",
            headers=_CHALLENGE,
        )

    async def login(self, request: Request) -> Response:
        """A token for a cookie: JSON gets 204, a form gets back to the page."""
        body = await bounded_body(request)
        form = request.headers.get("content-type", "").startswith(
            "application/x-www-form-urlencoded"
        )
        try:
            token = parse_qs(body.decode()).get("token", [""])[0] if form else _token_of(body)
        except ValueError:
            raise Problem(INVALID_REQUEST, 'the body must be {"token": "…"}') from None
        if not self._digest:
            return Response(status_code=204)
        if not self._fits(token):
            if form:
                return self.page(wrong=True)
            raise Problem(UNAUTHORIZED, "that is not the token", headers=_CHALLENGE)
        response = (
            Response(status_code=303, headers={"location": "/"})
            if form
            else Response(status_code=204)
        )
        response.set_cookie(
            COOKIE,
            self._cookie,
            max_age=_COOKIE_AGE_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def logout(self, request: Request) -> Response:
        """Have the browser forget its cookie."""
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    def page(self, *, wrong: bool) -> Response:
        """The page that asks for the token."""
        said = '<p class="wrong">That is not the token.</p>' if wrong else ""
        return HTMLResponse(
            _PAGE.replace("<!-- wrong -->", said),
            status_code=401,
            headers={**_CHALLENGE, "cache-control": "no-store"},
        )

    def _bears(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and self._fits(token.strip())

    def _knows(self, cookie: str) -> bool:
        try:
            morsel = SimpleCookie(cookie).get(COOKIE)
        except CookieError:
            return False
        if morsel is None:
            return False
        return hmac.compare_digest(morsel.value.encode(), self._cookie.encode())

    def _fits(self, token: str) -> bool:
        # Digests are of one length, so that not even the token's length takes longer.
        return hmac.compare_digest(_digest(token), self._digest)


class Guarded:
    """An application behind a door."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI."""
        if scope["type"] == "http":
            try:
                answer = self._door.check(scope)
            except Problem as problem:
                answer = problem.response()
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _token_of(body: bytes) -> str:
    given = json.loads(body)
    if not isinstance(given, dict) or not isinstance(given.get("token"), str):
        raise ValueError("no token")
    return str(given["token"])
