"""How signals end a command of a client."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from gateway.cli.exit_codes import SIGNALLED


class Ended(SystemExit):
    """A signal asked the process to end; `number` is its number.

    asyncio passes this on at once from wherever it is raised, and typer does not catch it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(SIGNALLED + number)
        self.number = number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise `Ended` where they arrive, so that what was begun on this
    machine is cleaned up. asyncio's own way to be interrupted waits for its loop, which may be
    writing to a pipe that is full.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        raise Ended(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What this process was told to ignore, as by nohup, it goes on to ignore.
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
