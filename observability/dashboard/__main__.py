"""Write the dashboards' files."""

from pathlib import Path

from observability.dashboard.grafana import json_of
from observability.dashboard.rabbitmq import RABBITMQ
from observability.dashboard.synod import SYNOD

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"
DASHBOARDS = (SYNOD, RABBITMQ)

if __name__ == "__main__":
    for description in DASHBOARDS:
        (FOLDER / f"{description.uid}.json").write_text(json_of(description), encoding="utf-8")
