"""Where the command line keeps the sessions of `synod login`: a file of the user's own, with one
for each gateway. A session is sent to the gateway that it is of, and to no other.
"""

import contextlib
import json
import os
import stat
import tempfile
from pathlib import Path

import httpx

from synod.errors import Misconfigured


def token_for(url: str) -> str | None:
    """The session of the gateway, unless the environment names a token; `None`: the client's own
    choice. Raises `Misconfigured`.
    """
    if os.environ.get("SYNOD_TOKEN"):
        return None
    return _read().get(_origin(url))


def keep(url: str, token: str) -> Path:
    """Keep a session for the gateway, in place of a former one; where. Raises `Misconfigured`."""
    return _write({**_read(), _origin(url): token})


def kept(url: str) -> str | None:
    """The session that is kept for the gateway. Raises `Misconfigured`."""
    return _read().get(_origin(url))


def forget(url: str) -> None:
    """Forget the session of the gateway. Raises `Misconfigured`."""
    sessions = _read()
    if sessions.pop(_origin(url), None) is not None:
        _write(sessions)


def _path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # After the XDG Base Directory Specification, which says to ignore relative ones.
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".config"
    return folder / "synod" / "sessions.json"


def _origin(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return ""  # The client says what is wrong with it.
    port = parsed.port or {"http": 80, "https": 443}.get(parsed.scheme, 0)
    return f"{parsed.scheme}://{parsed.host}:{port}{parsed.path.rstrip('/')}"


def _read() -> dict[str, str]:
    path = _path()
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise Misconfigured(
                    f"{path} may be read by others: chmod 600 it, and end its sessions if that "
                    "may have happened"
                )
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path} can't be read: {error}") from None
    if not isinstance(found, dict):
        raise Misconfigured(f"{path} holds no sessions: remove it")
    return {str(origin): str(token) for origin, token in found.items()}


def _write(sessions: dict[str, str]) -> Path:
    path = _path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made 0600, whatever the umask, and whole or not at all.
        number, name = tempfile.mkstemp(dir=path.parent, prefix=".sessions-")
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                json.dump(sessions, file, indent=2)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise Misconfigured(f"{path} can't be written: {error}") from None
    return path
