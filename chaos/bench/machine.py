"""The machine that was measured on, and what else it did meanwhile."""

import os
import platform
import time
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """What the report says of it."""
    return {
        "cores": os.cpu_count() or 0,
        "processor": _processor(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def busy_cores(seconds: float = 0.5) -> float:
    """How many cores' worth of processor time this machine uses just now (proc(5)'s stat)."""
    busy, _ = _ticks()
    began_s = time.monotonic()
    time.sleep(seconds)
    later, _ = _ticks()
    return (later - busy) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began_s)


def _ticks() -> tuple[int, int]:
    """The ticks of all cores since the start: at work, and all of them."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
