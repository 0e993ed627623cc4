"""The web UI's files, kept in memory: `/`, `/docs` and `/static/{name}`.

There is no build step: the browser runs the files of `gateway/ui`. The policy lets a page load from
its own gateway only, and run no script that is not one of these files.
"""

import hashlib
import mimetypes
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from gateway.http.routing import no_such_route

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class StaticFile(NamedTuple):
    """A file, ready to be sent."""

    body: bytes
    headers: dict[str, str]


class StaticFiles:
    """The endpoint for the UI's files."""

    def __init__(self) -> None:
        bodies = {name: file.read_bytes() for name, file in _walk(files("gateway") / "ui")}
        version = _version(bodies)
        # By this an open page notices that a restarted gateway serves another version.
        mark = b'<meta name="synod-ui" content="%s">'
        bodies["index.html"] = bodies["index.html"].replace(mark % b"", mark % version.encode())
        self._pages = {name: _static_file(name, body, version) for name, body in bodies.items()}

    async def index(self, request: Request) -> Response:
        """The page, which loads everything else."""
        return self._answer(request, self._pages["index.html"])

    async def docs(self, request: Request) -> Response:
        """The page that shows `/openapi.json`."""
        return self._answer(request, self._pages["docs.html"])

    async def static(self, request: Request) -> Response:
        """A script, a style sheet or a picture. Raises `Problem`."""
        page = self._pages.get(request.path_params["name"])
        if page is None:
            raise no_such_route(request.url.path)
        return self._answer(request, page)

    def _answer(self, request: Request, page: StaticFile) -> Response:
        if request.headers.get("if-none-match") == page.headers["etag"]:
            return Response(status_code=304, headers=page.headers)
        return Response(page.body, headers=page.headers)


def _walk(folder: Traversable, above: str = "") -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for child in folder.iterdir():
        if child.is_dir():
            found += _walk(child, f"{above}{child.name}/")
        else:
            found.append((above + child.name, child))
    return found


def _version(bodies: dict[str, bytes]) -> str:
    """A version that changes with any of the files."""
    digest = hashlib.sha256()
    for name in sorted(bodies):
        digest.update(name.encode() + b"\0" + hashlib.sha256(bodies[name]).digest())
    return digest.hexdigest()[:16]


def _static_file(name: str, body: bytes, version: str) -> StaticFile:
    extension = name[name.rindex(".") :]
    kind = _TYPES.get(extension) or mimetypes.guess_type(name)[0] or "text/plain"
    return StaticFile(
        body,
        {
            "content-type": f"{kind}; charset=utf-8",
            "content-security-policy": POLICY,
            "referrer-policy": "no-referrer",
            # Asked for again each time and answered by 304: a new version is used at once.
            "cache-control": "no-cache",
            "synod-ui": version,
            "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        },
    )
