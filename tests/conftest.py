"""Fixtures that all tests share."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker
from tests.brokers import real_broker

# On a busy machine an example may take long; pytest's own limit is for the whole test.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=1_000)
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="session")
def amqp_url(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The URL of a real RabbitMQ that all tests share; fails, never skips, without one."""
    try:
        with real_broker(tmp_path_factory.mktemp("rabbitmq")) as broker:
            request.config.stash[_ORIGIN] = broker.origin
            yield broker.url
    except BrokerFailedError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def private_broker(tmp_path: Path) -> Iterator[PrivateBroker]:
    """A running RabbitMQ of the test's own, which it may kill and start again."""
    broker = PrivateBroker(tmp_path / "rabbitmq")
    try:
        broker.start()
        yield broker
    except BrokerFailedError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        broker.stop()


_ORIGIN = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that writes the golden scenarios anew instead of comparing them."""
    parser.addoption(
        "--regenerate-scenarios",
        action="store_true",
        help="write tests/scenarios/*.txt as they happen now; read the difference before a commit",
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print which broker the tests used."""
    if origin := config.stash.get(_ORIGIN, None):
        terminalreporter.write_line(f"RabbitMQ: {origin}")
