"""The containers of `make up`, as the tests that need a real engine use them."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synod.errors import SynodError

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:80"

needs_containers = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        os.environ.get("SYNOD_COMPOSE") != "1", reason="SYNOD_COMPOSE=1 runs the containers"
    ),
]


def try_to_make(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `make`, and leave to the caller what its exit code means."""
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def make(*arguments: str) -> str:
    """Run `make`, which must succeed, and return what it prints."""
    done = try_to_make(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def token() -> str:
    """The token that `make up` has drawn."""
    return (ROOT / ".secrets/token").read_text()


def until(true: Callable[[], object], what: str, timeout_s: float = 120.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if true():
                return
        except (OSError, SynodError):
            pass  # Not yet.
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.5)


def get(url: str) -> Any:
    """The JSON at a URL."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def all_up(count: int) -> bool:
    """Whether Prometheus has so many targets and reaches all of them."""
    # A query would find what it had before, too, for five minutes.
    found = get("http://127.0.0.1:9090/api/v1/targets?state=active")["data"]["activeTargets"]
    return len(found) == count and all(target["health"] == "up" for target in found)


def containers(label: str) -> list[str]:
    """The ids of the containers of this folder's project that carry a label."""
    project = f"label=com.docker.compose.project={ROOT.name}"
    command = ["docker", "ps", "--all", "--quiet", "--filter", project, "--filter"]
    return subprocess.run(
        [*command, f"label={label}"], capture_output=True, text=True, check=True
    ).stdout.split()


def container(service: str) -> str:
    """The id of the container of a service."""
    [found] = containers(f"com.docker.compose.service={service}")
    return found
