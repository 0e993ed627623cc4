"""A store that a bench measures: how it is started, used and ended."""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.bench.loops import StoreSession
from chaos.cluster.processes import Daemon, ProcessFailed, Watchdog, cpu_seconds, wait_until

_START_S = 60.0


class MeasuredStore(ABC):
    """A store, which runs from `__enter__` to `__exit__`. Both block."""

    name = ""
    about = ""
    """What it is and how it is set up, for the report."""
    value_bytes_max = 0
    """The largest value that it takes."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what was started."""

    @abstractmethod
    async def open(self, size_bytes: int, clients: int) -> Sequence[StoreSession]:
        """A session for each client, for values of this size."""

    async def disconnect(self) -> None:  # noqa: B027  # Most sessions share nothing.
        """Give up what sessions share. Called when all of them are closed."""

    def cpu_seconds(self) -> dict[str, float]:
        """The processor time used so far, by kinds of processes; empty if they are not ours."""
        return {}


class ProcessStore(MeasuredStore):
    """A store of processes in a folder, which end with this process, in whatever way it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name.lower()
        self._daemons: list[Daemon] = []
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._watchdog = Watchdog()
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def cpu_seconds(self) -> dict[str, float]:
        """See `MeasuredStore`."""
        ids = [daemon.process_id for daemon in self._daemons]
        return {self.name: sum(cpu_seconds(one) for one in ids if one is not None)}

    @abstractmethod
    def _start(self) -> None:
        """Run the processes, and wait until they serve."""

    def _stop(self) -> None:
        for daemon in self._daemons:
            daemon.stop()
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None

    def _run(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        daemon = Daemon(
            name,
            command,
            environment or {"PATH": os.environ.get("PATH", os.defpath)},
            folder=self.folder,
            log=self.folder / f"{name}.log",
            record=self.folder / f"{name}.json",
        )
        self._daemons.append(daemon)
        assert self._watchdog is not None
        daemon.start(group=self._watchdog.group)

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until `ready()`. Raises `ProcessFailed` if a program ended, or takes too long."""

        def is_ready() -> bool:
            for daemon in self._daemons:
                if not daemon.runs:
                    raise ProcessFailed(f"{daemon.name} ended; {daemon.last_words()}")
            try:
                return ready()
            except (OSError, ValueError):
                return False

        try:
            wait_until(is_ready, what, timeout_s=_START_S)
        except TimeoutError as error:
            raise ProcessFailed(f"{error}; {self._daemons[0].last_words()}") from None


def listens(port: int) -> bool:
    """Whether a local port takes connections. Raises `OSError` if it does not."""
    with socket.create_connection(("127.0.0.1", port), timeout=2.0):
        return True
