"""Cases of several scenarios on one cluster: its start takes longer than a case."""

from chaos.scenarios.catalogue import SCENARIOS
from chaos.scenarios.runner import only
from chaos.scenarios.scenario import Scenario


def together(*cases: tuple[str, str]) -> Scenario:
    """A scenario of these cases, each with the name of the scenario that it is from."""
    parts = [only(SCENARIOS[scenario], [case]) for scenario, case in cases]
    return Scenario(
        "-and-".join(case for _, case in cases),
        "; ".join(part.says for part in parts),
        tuple(case for part in parts for case in part.cases),
        {node: rule for part in parts for node, rule in part.failpoints.items()},
        brokers=max(part.brokers for part in parts),
    )
