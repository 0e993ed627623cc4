"""One real cluster for all tests: RabbitMQ and sixteen processes, started once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.processes import ProcessFailed
from chaos.cluster.rabbitmq import BrokerFailedError
from tests.long import LONG

MIB = 1024 * 1024
GREATEST_FILE_BYTES = 400 * MIB

_FIGURES = pytest.StashKey[list[str]]()

Figure = Callable[[str], None]


@dataclass(frozen=True)
class Length:
    """How long tests take: the short form runs with all tests, the long one by choice."""

    long: bool

    def pick(self, short: int, long: int) -> int:
        return long if self.long else short


@pytest.fixture(scope="session")
def length() -> Length:
    """The long form with `SYNOD_LONG=1`, else the short one."""
    return Length(LONG)


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """The cluster that all tests share."""
    settings = {"max_file_bytes": str(GREATEST_FILE_BYTES)}
    description = Description.mint(settings=settings)
    yield from started(LocalCluster(tmp_path_factory.mktemp("cluster"), description))


def started(cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The body of a fixture: a cluster that is ended afterwards."""
    try:
        cluster.start()
        yield cluster
    except (BrokerFailedError, ProcessFailed) as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def idle_peaks_kib(running_cluster: LocalCluster) -> dict[str, int]:
    """The peak memory of each process before the first request."""
    return {name: running_cluster.vm_hwm_kib(name) for name in running_cluster.nodes}


@pytest.fixture
def cluster(
    running_cluster: LocalCluster, idle_peaks_kib: dict[str, int]
) -> Iterator[LocalCluster]:
    """The shared cluster, whole and ready; paused nodes go on afterwards."""
    running_cluster.start()
    running_cluster.wait_whole()
    yield running_cluster
    for name in running_cluster.nodes:
        running_cluster.resume(name)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """A function that prints a line at the end of the run."""
    lines = request.config.stash.setdefault(_FIGURES, [])
    return lambda line: lines.append(f"{request.node.name}: {line}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what the tests measured."""
    for line in config.stash.get(_FIGURES, []):
        terminalreporter.write_line(line)
