"""How signals end a command of a client."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from gateway.cli.exit_codes import SIGNALLED


class Ended(SystemExit):
    """A signal asked the process to end; `number` is its number.

    asyncio propagates this at once from wherever it is raised, and typer does not catch it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(SIGNALLED + number)
        self.number = number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise `Ended` where they arrive, so that the command cleans up
    its local files. asyncio's own handling of interrupts waits for its loop, which may be writing
    to a full pipe.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        raise Ended(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # Signals that this process inherited as ignored, as from nohup, stay ignored.
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    former = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
