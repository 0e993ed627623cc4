"""Operating-system processes: what Linux reports of them, and starting and ending our own.

A process id alone names no process, because Linux reuses it. Together with the time of its start it
does, so both are recorded, and a signal is sent through a descriptor of the process that was
checked.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# proc(5): positions after the name of the program, from the state on.
_STATE, _SESSION, _USER_TICKS, _SYSTEM_TICKS, _STARTED = 0, 3, 11, 12, 19

_WATCH = 'read -r word; [ "$word" = done ] || kill -s KILL -- "-$$"'


class ProcessFailed(RuntimeError):
    """A process ended, or did not do what it was started for; the text has the end of its log."""


def started_at(process_id: int) -> str | None:
    """When a process started, in clock ticks since boot; `None` if it has ended."""
    fields = _stat(process_id)
    return None if fields is None else fields[_STARTED]


def session_members(leader: int) -> list[int]:
    """The running processes of the session that `leader` founded."""
    numbers = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    found = ((number, _stat(number)) for number in numbers)
    return sorted(
        n for n, fields in found if fields is not None and int(fields[_SESSION]) == leader
    )


def cpu_seconds(process_id: int) -> float:
    """The processor time that a process has used; 0 if it has ended."""
    fields = _stat(process_id)
    if fields is None:
        return 0.0
    return (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS_PER_SECOND


def memory_kib(process_id: int, field: str = "VmHWM") -> int:
    """A figure of proc(5)'s status, such as the peak memory; 0 if the process has ended."""
    try:
        text = Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def written_bytes(process_id: int) -> int:
    """How much a process has caused to be written to disks; 0 if it has ended."""
    try:
        text = Path(f"/proc/{process_id}/io").read_text()
    except OSError:
        return 0
    return int(text.partition("\nwrite_bytes:")[2].split()[0])


def _stat(process_id: int) -> list[str] | None:
    """The fields of proc(5)'s stat from the third, the state, on; `None` if it ended."""
    try:
        content = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return None
    fields = content.rpartition(")")[2].split()
    return None if fields[_STATE] in "ZX" else fields


@dataclass(frozen=True, slots=True)
class ProcessName:
    """Names one process of this boot of this machine."""

    process_id: int
    started_at: str

    @classmethod
    def of(cls, process_id: int) -> Self | None:
        """The name of a process that runs."""
        started = started_at(process_id)
        return None if started is None else cls(process_id, started)

    @property
    def runs(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        return started_at(self.process_id) == self.started_at

    def signal(self, number: int) -> bool:
        """Send a signal to this process and to no other; return whether it was there."""
        try:
            descriptor = os.pidfd_open(self.process_id)
        except ProcessLookupError:
            return False
        try:
            if not self.runs:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it ended in time."""
        try:
            descriptor = os.pidfd_open(self.process_id)
        except ProcessLookupError:
            return True
        try:
            if not self.runs:
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(timeout_s * 1000))
        finally:
            os.close(descriptor)


class Watchdog:
    """Ends a group of processes when this process closes it or dies, in whatever way.

    The watchdog is a shell that waits on a pipe whose other end only this process holds; it leads
    the group, and the processes it guards join by `subprocess.Popen(process_group=...)`.
    """

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH], stdin=subprocess.PIPE, process_group=0
        )

    @property
    def group(self) -> int:
        """The process group to join."""
        return self._shell.pid

    def close(self) -> None:
        """End the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.communicate()


class Daemon:
    """One program that is started and ended repeatedly, with a log and a record of its process.

    A later `Daemon` on the same record takes the running process over.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        folder: Path,
        log: Path,
        record: Path,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.folder = folder
        self.log = log
        self.starts = 0
        self._record = record
        self._child: subprocess.Popen[bytes] | None = None
        self._process = self._recorded()

    @property
    def process_id(self) -> int | None:
        """The id of the running process, or `None`."""
        process = self._process
        return process.process_id if process is not None and process.runs else None

    @property
    def runs(self) -> bool:
        """Whether it runs. A paused process runs, too."""
        return self.process_id is not None

    def start(self, arguments: Sequence[str] = (), *, group: int | None = None) -> None:
        """Start it, unless it runs. Without the group of a `Watchdog` it outlives us."""
        if self.runs:
            return
        self._reap()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [*self.command, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=group is None,
                process_group=group,
            )
        self.starts += 1
        self._process = ProcessName.of(self._child.pid)
        if self._process is not None:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            content = {
                "process_id": self._process.process_id,
                "started_at": self._process.started_at,
            }
            self._record.write_text(json.dumps(content) + "\n")

    def signal(self, number: int) -> bool:
        """Send a signal; return whether the process was there."""
        return self._process is not None and self._process.signal(number)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL), and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._await_end(10.0)

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it in good order (SIGTERM); kill it after `timeout_s`."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not self._await_end(timeout_s):
            self.kill()

    def wait_end(self, timeout_s: float) -> int | None:
        """Wait until it ends by itself and return its exit code, if it is known here.

        Raises `TimeoutError`.
        """
        if not self._await_end(timeout_s):
            raise TimeoutError(f"{self.name} did not end within {timeout_s} s")
        return self._child.returncode if self._child is not None else None

    def last_words(self, lines: int = 20) -> str:
        """The end of its log."""
        if not self.log.exists():
            return f"{self.name} wrote no log"
        text = self.log.read_text(errors="replace").strip()
        return f"the end of {self.log}:\n" + "\n".join(text.splitlines()[-lines:])

    def _await_end(self, timeout_s: float) -> bool:
        if self._process is not None and not self._process.wait(timeout_s):
            return False
        self._reap()
        return True

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
        self._process = None
        self._record.unlink(missing_ok=True)

    def _recorded(self) -> ProcessName | None:
        try:
            content = json.loads(self._record.read_text())
            return ProcessName(int(content["process_id"]), str(content["started_at"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def wait_until(
    true: Callable[[], bool], what: str, *, timeout_s: float, look_s: float = 0.05
) -> None:
    """Wait for a condition. Raises `TimeoutError`, which names it."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(look_s)
