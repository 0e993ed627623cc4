"""A Prometheus of a test's own: Debian's package, a free port, data in the test's folder."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from chaos.cluster.rabbitmq import free_ports


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; fail, never skip, without it."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install prometheus (`make test` does)")
    return found


class Prometheus:
    """Asks the `targets` of a job (name to port on this machine) once a second.

    It knows the rules of the file `rules`, if any.
    """

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, int],
        *,
        job: str = "synod",
        rules: Path | None = None,
    ) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        lists = [
            f"      - {{targets: ['127.0.0.1:{port}'], labels: {{instance: {name}}}}}"
            for name, port in targets.items()
        ]
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            + (f"rule_files: [{rules}]\n" if rules else "")
            + f"scrape_configs:\n  - job_name: {job}\n    static_configs:\n"
            + "\n".join(lists)
            + "\n"
        )
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.ask("query", query="vector(1)")
            except OSError:
                log = (self._folder / "prometheus.log").read_text()
                assert self._process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.1)
            else:
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()

    def ask(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        """The result of `query` or `query_range`. Raises `OSError` or `AssertionError`."""
        result: list[dict[str, Any]] = self._data(what, **parameters)["result"]
        return result

    def alerts(self, group: str) -> dict[str, str]:
        """The alerts of a group of rules, each with its expression."""
        groups = {each["name"]: each["rules"] for each in self._data("rules")["groups"]}
        return {rule["name"]: rule["query"] for rule in groups[group]}

    def _data(self, what: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        data: dict[str, Any] = found["data"]
        return data
