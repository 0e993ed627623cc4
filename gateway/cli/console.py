"""The output of the command line: results on standard output, all else on standard error.

Text for people has no character that a terminal obeys (`observability.safe_text.visible`), and none
that its encoding lacks. Output for programs is JSON in UTF-8, whatever the locale.
"""

import contextlib
import errno
import io
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TextIO

from observability.safe_text import json_text, visible

if TYPE_CHECKING:
    from rich.console import Console


def out() -> "Console":
    """Standard output. Made anew each time, because tests replace the stream."""
    # Imported here, as all of rich below, so that a node starts without it.
    from gateway.cli.terminal import SafeConsole

    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error does by default: a name that the locale lacks must not end a listing.
        sys.stdout.reconfigure(errors="backslashreplace")
    return SafeConsole(highlight=False, soft_wrap=True)


def err() -> "Console":
    """Standard error."""
    from gateway.cli.terminal import SafeConsole

    return SafeConsole(stderr=True, highlight=False, soft_wrap=True)


def standard_input() -> BinaryIO:
    """Standard input, byte by byte. Raises `OSError` if it is closed."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed", "standard input")
    return sys.stdin.buffer


def note(text: str) -> None:
    """A line for people, on standard error. The text is no markup."""
    # Escaped here, because rich drops some characters before they reach the console. If standard
    # error itself fails, there is no place to report it.
    with contextlib.suppress(OSError, ValueError):
        err().print(visible(text, lines=True), markup=False)


def note_failure(value: dict[str, Any]) -> None:
    """A failure for programs: one line of JSON on standard error."""
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, json_text(value))


def print_json(value: Any) -> None:
    """A value for programs, on standard output."""
    _write(sys.stdout, json_text(value, indent=2))


def print_json_line(value: Any) -> None:
    """A value for programs that read lines as they arrive, on standard output."""
    _write(sys.stdout, json_text(value))


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        raise OSError(errno.EBADF, "it is closed", "standard output")
    if isinstance(stream, io.TextIOWrapper):
        stream.flush()
        stream.buffer.write(text.encode() + b"\n")
    else:
        stream.write(text + "\n")
    stream.flush()


def size_text(size_bytes: int) -> str:
    """A size for people."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


class Bar:
    """A progress bar for bytes and files on standard error, if that is a terminal.

    Satisfies `gateway.cli.transfer.Progress`.
    """

    def __init__(self, *, shown: bool, many: bool) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        console = err()
        shown = shown and console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
            transient=True,
        )
        self._shown = shown
        self._byte_task = self._bars.add_task("bytes", total=0)
        self._many = many
        self._total_bytes = 0
        self._total_files = 0
        self._done_files = 0

    def __enter__(self) -> Self:
        if self._shown:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            self._bars.stop()

    def expect(self, files: int, size_bytes: int) -> None:
        """There is this much more to transfer."""
        self._total_files += files
        self._total_bytes += size_bytes
        if self._shown:
            self._bars.update(self._byte_task, total=self._total_bytes)
            self._describe()

    def moved(self, size_bytes: int) -> None:
        """This many more bytes were transferred."""
        if self._shown:
            self._bars.update(self._byte_task, advance=size_bytes)

    def finished(self, files: int) -> None:
        """This many more files are complete."""
        self._done_files += files
        if self._shown:
            self._describe()

    def _describe(self) -> None:
        if self._many:
            text = f"{self._done_files}/{self._total_files} files"
            self._bars.update(self._byte_task, description=text)
