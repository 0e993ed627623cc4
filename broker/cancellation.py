"""A cancelled call of aiormq ends as cancelled."""

import asyncio
import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def cancellation_kept() -> Iterator[None]:
    """Around calls of aiormq or aio-pika that end by themselves, inside of any `asyncio.timeout` or
    handler.

    A call that is cancelled closes its channel, and the channel then rejects its calls, this one
    included: it raises why the channel was closed, or a bare `Exception`, instead of
    `CancelledError`; and some calls return as if nothing had happened. Then a task goes on that
    nothing cancels again, and a timeout does not become a `TimeoutError`.
    """
    task = asyncio.current_task()
    assert task is not None
    former = task.cancelling()
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if task.cancelling() > former:
            raise asyncio.CancelledError from error
        raise
    if task.cancelling() > former:
        raise asyncio.CancelledError
