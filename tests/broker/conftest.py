"""A broker on which each node is a user of its own, for all tests of that."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from broker.topology import Topology
from chaos.cluster.rabbitmq import BrokerFailedError, PrivateBroker
from tests.broker.users import PreparedBroker


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedBroker]:
    """A RabbitMQ with its management API, and one cluster's users on it."""
    folder = tmp_path_factory.mktemp("users")
    broker = PrivateBroker(folder / "rabbitmq", management=True)
    try:
        broker.start()
        yield PreparedBroker(broker, Topology(f"own-{uuid4().hex[:8]}", users="own"), folder / "u")
    except BrokerFailedError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        broker.kill()
