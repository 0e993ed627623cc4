"""A whole cluster in a process of its own, which all hostile requests share."""

from collections.abc import Iterator

import pytest

from chaos.cluster.processes import Daemon, Watchdog, wait_until
from chaos.cluster.rabbitmq import free_ports
from tests.acceptance.shell import clean_environment, synod_command


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, int]]:
    """Give the process and its port; what it logged is in `log`."""
    folder = tmp_path_factory.mktemp("embedded")
    (port,) = free_ports(1)
    environment = clean_environment(
        data=str(folder / "data"), port=str(port), max_file_bytes=str(1024 * 1024)
    )
    up = Daemon(
        "up",
        [*synod_command(), "up"],
        environment,
        folder=folder,
        log=folder / "up.log",
        record=folder / "up.json",
    )
    watchdog = Watchdog()
    try:
        up.start(group=watchdog.group)
        wait_until(
            lambda: not up.runs or "Synod is ready" in up.log.read_text(),
            "synod up is ready",
            timeout_s=60,
        )
        assert up.runs, up.last_words()
        yield up, port
    finally:
        up.kill()
        watchdog.close()
