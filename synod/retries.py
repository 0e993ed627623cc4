"""How long a client retries, and what it tells its user meanwhile and afterwards."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator

from synod.errors import SynodError

_PAUSE_LEAST_S = 0.05
_PAUSE_MOST_S = 2.0
_SILENT_S = 2.0
"""After this long without an answer, the client tells the user what it waits for."""


class Retry:
    """The deadline of an operation's attempts, and the pauses between them: exponential, with
    jitter.
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.began_s = time.monotonic()
        self.last: SynodError | None = None
        """The latest failure that was followed by another attempt."""
        self._ends_s = self.began_s + patience_s
        self._pause_s = _PAUSE_LEAST_S

    @property
    def waited_s(self) -> float:
        """The time since the first attempt began."""
        return time.monotonic() - self.began_s

    def moved(self) -> None:
        """There was progress: start the deadline and the pauses anew."""
        self._ends_s = time.monotonic() + self.patience_s
        self._pause_s = _PAUSE_LEAST_S

    async def paused(self, error: SynodError) -> bool:
        """Wait before the next attempt; false at once if there is no time for one."""
        pause_s = self._pause_s * random.uniform(0.5, 1.5)
        if time.monotonic() + pause_s >= self._ends_s:
            return False
        self.last = error
        self._pause_s = min(_PAUSE_MOST_S, self._pause_s * 2)
        await asyncio.sleep(pause_s)
        return True

    async def pause(self, error: SynodError) -> None:
        """Wait before the next attempt. Raises `error` if there is no time for one."""
        if not await self.paused(error):
            raise error


def after_read(error: SynodError, read: str, retry: Retry) -> SynodError:
    """The error to raise after a read's last attempt; `read` names what was read, if known."""
    if not read or not error.again or (retry.last is None and not error.problem):
        return error
    # The cluster's own reason is more telling than a last attempt that ran out of time.
    telling = error if error.problem or retry.last is None else retry.last
    reason = str(telling.problem.get("reason") or telling).rstrip(".")
    return type(error)(
        f"{read} was not read: {reason}. Nothing was changed; it was tried for "
        f"{retry.waited_s:.0f} s. Try again, or for longer (--timeout)",
        telling.problem,
    )


class Waiting:
    """Tells the user once, after two seconds without an answer, what the client waits for."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell

    @contextlib.contextmanager
    def watching(self, url: str, retry: Retry, *, watched: bool) -> Iterator[None]:
        """The block waits for an answer from `url`; `watched`: an answer is due."""
        if self._tell is None or not watched:
            yield
            return
        left_s = max(0.0, _SILENT_S - retry.waited_s)
        timer = asyncio.get_running_loop().call_later(left_s, self._say, url, retry)
        try:
            yield
        finally:
            timer.cancel()

    def _say(self, url: str, retry: Retry) -> None:
        if self._tell is not None:
            tell, self._tell = self._tell, None
            reason = "" if retry.last is None else f" ({retry.last})"
            tell(f"waiting for {url}, for up to {retry.patience_s:.0f} s{reason}")
