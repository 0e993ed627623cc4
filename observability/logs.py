"""Logs: one JSON object a line for machines, one readable line for people.

Logs never hold contents or passwords: whatever looks like one is removed from every line, because
an error's text or a traceback may contain them unintentionally.
"""

import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import TextIO

from observability.safe_text import json_text, visible

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


_BYTES = re.compile(r"""\bb(?:'(?:[^'\\]|\\.){9,}'|"(?:[^"\\]|\\.){9,}")""")
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^/\s]*@")
_BEARER = re.compile(r"(?i)(bearer\s+)[!-~]+")


def scrubbed(text: str) -> str:
    """`text` without bytes of contents, passwords in URLs and bearer tokens."""
    text = _BYTES.sub(lambda found: f"<{len(found[0]) - 3} bytes>", text)
    return _BEARER.sub(r"\1********", _PASSWORD.sub(r"\1:********@", text))


class JsonFormatter(logging.Formatter):
    """A line of JSON; `extra=` becomes members of the object.

    `node` is a member of every line that names no other node.
    """

    def __init__(self, node: str = "") -> None:
        super().__init__()
        self._node = {"node": node} if node else {}

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": scrubbed(record.getMessage()),
            **self._node,
            **_extras(record),
        }
        if record.exc_info:
            entry["exception"] = scrubbed(self.formatException(record.exc_info))
        return json_text(entry, default=str)


class HumanFormatter(logging.Formatter):
    """A line for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and a traceback below it if there is one."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        name = record.name.removeprefix("synod.")
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        said = visible(f"{name}: {record.getMessage()}{extras}")
        line = f"{at} {record.levelname.lower():8}{said}"
        if record.exc_info:
            traceback = self.formatException(record.exc_info).split("\n")
            # Indented: an error's text may have lines of its own.
            line += "".join(f"\n  {visible(one)}" for one in traceback)
        return scrubbed(line)


class Throttle(logging.Filter):
    """Passes at most `lines_per_s` lines of a logger, and logs how many it suppressed.

    For lines that a client can cause, which it may do thousands of times a second.
    """

    def __init__(self, lines_per_s: int) -> None:
        super().__init__()
        self._lines_per_s = lines_per_s
        self._second = 0
        self._lines = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line."""
        second = int(time.monotonic())
        if second != self._second:
            if self._lines > self._lines_per_s:
                record.kept_back = self._lines - self._lines_per_s
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= self._lines_per_s


def configure_logs(level: str = "info", stream: TextIO | None = None, node: str = "") -> None:
    """Send all logs of this process to `stream` (standard error), in the form that suits it.

    `node` is the node of this process, if there is only one.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanFormatter() if stream.isatty() else JsonFormatter(node))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("synod").setLevel(level.upper())


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}
