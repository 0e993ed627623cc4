"""The command `synod` as users run it: in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from chaos.cluster.processes import memory_kib


@dataclass(frozen=True)
class Ran:
    """The exit code, the output and the peak memory of a command."""

    code: int
    out: str
    err: str
    peak_kib: int

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment, without other settings of Synod than these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")}
    return kept | {f"SYNOD_{name.upper()}": value for name, value in settings.items()}


def synod_command() -> list[str]:
    """Return the command line, which works in any folder."""
    return [sys.executable, "-m", "synod"]


def synod(
    *arguments: str | Path,
    environment: Mapping[str, str],
    folder: Path,
    timeout_s: float = 60.0,
    standard_input: BinaryIO | None = None,
) -> Ran:
    """Run the command in `folder` until it ends. Raises `subprocess.TimeoutExpired`."""
    command = [*synod_command(), *map(str, arguments)]
    out, err = folder / "out.txt", folder / "err.txt"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=standard_input or subprocess.DEVNULL,
            stdout=to_out,
            stderr=to_err,
        )
        peak_kib = 0
        deadline = time.monotonic() + timeout_s
        while process.poll() is None:
            # The peak only grows, so the last reading before the end is nearly the final one.
            peak_kib = max(peak_kib, memory_kib(process.pid))
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise subprocess.TimeoutExpired(command, timeout_s)
            time.sleep(0.02)
    return Ran(process.returncode, out.read_text(), err.read_text(), peak_kib)
