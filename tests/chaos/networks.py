"""Networks of a test's own; without root or the tools it is skipped, and fails where CI is set."""

import os

import pytest

from chaos.cluster.network_namespaces import network_obstacle


def need_network_namespaces() -> None:
    """End the test unless networks of its own can be made here."""
    if obstacle := network_obstacle():
        if os.environ.get("CI"):
            pytest.fail(obstacle, pytrace=False)
        pytest.skip(obstacle)
