"""The Grafana dashboard as code: five questions, each a row of panels.

::

    python -m observability.dashboard > observability/grafana/dashboards/synod.json

A test compares the file with this module, and another runs every query against a real cluster.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

UID = "synod"
_WIDTH = 24
_STAT_HEIGHT = 4
_HEIGHT = 8


class Query(NamedTuple):
    """A PromQL expression and the name of its series; `{{label}}` stands for a label."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """A panel. `kind` is one of Grafana's; `unit` one of its units."""

    title: str
    text: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    good: str = ""
    """For a `stat`: the colours with their lower bounds, such as `red 0, green 1`."""


class Annotation(NamedTuple):
    """An annotation: a line on every panel wherever the expression is above 0."""

    name: str
    expression: str
    text: str
    colour: str


_RATE = "$__rate_interval"


def _quantile(part: float, metric: str, by: str = "le") -> str:
    return f"histogram_quantile({part}, sum by ({by}) (rate({metric}_bucket[{_RATE}])))"


_ABOUT_FILES = 'route=~"files|directories|move|copy|transactions"'

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is it healthy?",
        (
            Panel(
                "Nodes that answer",
                "Nodes that Prometheus reaches.",
                (Query('sum(up{job="synod"})', "up"),),
                kind="stat",
            ),
            Panel(
                "Nodes with a broker",
                "Nodes that are connected to RabbitMQ.",
                (Query("sum(paxos_node_broker_connected)", "connected"),),
                kind="stat",
            ),
            Panel(
                "Leaders",
                "1 is right; 0 means that no write is taken.",
                (Query("sum(paxos_proposer_leader)", "leaders"),),
                kind="stat",
                good="red 0, green 1, red 2",
            ),
            Panel(
                "Stores in the view",
                "Every one of them holds every acknowledged write.",
                (Query("max(paxos_learner_view_stores)", "stores"),),
                kind="stat",
                good="red 0, orange 2, green 3",
            ),
            Panel(
                "Requests by answer",
                "2xx were done; 503 did not happen and never will; 504 is not known yet.",
                (
                    Query(
                        f"sum by (status) (rate(paxos_gateway_requests_total{{{_ABOUT_FILES}}}"
                        f"[{_RATE}]))",
                        "{{status}}",
                    ),
                ),
                unit="reqps",
            ),
            Panel(
                "Read leases",
                "Stores that may serve linearizable reads.",
                (Query("sum(paxos_store_read_lease)", "stores with a lease"),),
            ),
        ),
    ),
    (
        "Is it fast?",
        (
            Panel(
                "Time of a write",
                "From the head of a PUT to the end of its answer, at the gateway.",
                tuple(
                    Query(
                        f"histogram_quantile({part}, sum by (le) (rate("
                        f'paxos_gateway_request_seconds_bucket{{method="PUT"}}[{_RATE}])))',
                        name,
                    )
                    for part, name in ((0.5, "p50"), (0.99, "p99"))
                ),
                unit="s",
            ),
            Panel(
                "Where the time goes, p50",
                "Paxos: accept to chosen. 2PC: prepare to decided. Disk: one commit of a journal.",
                (
                    Query(_quantile(0.5, "paxos_proposer_accept_seconds"), "Paxos"),
                    Query(_quantile(0.5, "paxos_learner_decision_seconds"), "2PC"),
                    Query(_quantile(0.5, "paxos_node_journal_commit_seconds"), "disk"),
                ),
                unit="s",
            ),
            Panel(
                "Commands decided",
                "By outcome, at the coordinator.",
                (
                    Query(
                        f"sum by (outcome) (rate(paxos_learner_commands_total[{_RATE}]))",
                        "{{outcome}}",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                "Commands in a slot",
                "What a slot carries on average: more under load.",
                (
                    Query(
                        f"sum(rate(paxos_proposer_batch_commands_sum[{_RATE}])) / "
                        f"sum(rate(paxos_proposer_batch_commands_count[{_RATE}]))",
                        "commands",
                    ),
                ),
            ),
            Panel(
                "Messages",
                "Received by actors each second, by role.",
                (
                    Query(
                        f"sum by (role) (rate(paxos_node_messages_received_total[{_RATE}]))",
                        "{{role}}",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                "Time of a turn, p99",
                "A long turn makes everything behind it wait.",
                (Query(_quantile(0.99, "paxos_node_turn_seconds", "le, role"), "{{role}}"),),
                unit="s",
            ),
        ),
    ),
    (
        "Who leads?",
        (
            Panel(
                "Leader",
                "1 for the proposer that leads.",
                (Query("paxos_proposer_leader", "{{node}}"),),
                kind="state",
            ),
            Panel(
                "Coordinator",
                "1 for the learner that drives two-phase commit.",
                (Query("paxos_learner_coordinator", "{{node}}"),),
                kind="state",
            ),
            Panel(
                "Epoch of the view",
                "Rises by one whenever a store or the coordinator is taken out or in.",
                (Query("max(paxos_learner_view_epoch)", "epoch"),),
            ),
            Panel(
                "Elections",
                "Ballots that proposers stood with, since each started.",
                (Query("sum(paxos_proposer_elections_total)", "ballots"),),
            ),
        ),
    ),
    (
        "What is stuck?",
        (
            Panel(
                "The log",
                "Chosen, and decided; a gap that stays is a slot in doubt.",
                (
                    Query("max(paxos_learner_scanned_slot)", "chosen"),
                    Query("max(paxos_learner_decided_slot)", "decided"),
                ),
            ),
            Panel(
                "Behind",
                "How many slots each store has still to apply.",
                (
                    Query(
                        "scalar(max(paxos_learner_decided_slot)) - paxos_store_applied_slot",
                        "{{node}}",
                    ),
                ),
            ),
            Panel(
                "In doubt",
                "Slots that a store has prepared without knowing their outcome.",
                (Query("paxos_store_in_doubt_slots", "{{node}}"),),
            ),
            Panel(
                "In flight",
                "Requests at the gateway, and slots that are proposed and not chosen.",
                (
                    Query("sum(paxos_gateway_requests_in_flight)", "requests"),
                    Query("sum(paxos_proposer_in_flight_slots)", "slots"),
                ),
            ),
            Panel(
                "Timers armed",
                "By role; each has one message under way.",
                (Query("sum by (role) (paxos_node_timers_armed)", "{{role}}"),),
            ),
            Panel(
                "Journals",
                "Bytes on disk, by role; truncation and snapshots keep them bounded.",
                (Query("sum by (role) (paxos_node_journal_bytes)", "{{role}}"),),
                unit="bytes",
            ),
        ),
    ),
    (
        "What failed when?",
        (
            Panel(
                "Nodes",
                "1 while Prometheus reaches the node.",
                (Query('up{job="synod"}', "{{instance}}"),),
                kind="state",
            ),
            Panel(
                "Files",
                "In the namespace, as each learner has it.",
                (Query("paxos_learner_files", "{{node}}"),),
            ),
        ),
    ),
)

ANNOTATIONS = (
    Annotation(
        "Another leader",
        "sum by (node) (changes(paxos_proposer_leader[15s])) * on (node) paxos_proposer_leader > 0",
        "{{node}} leads",
        "orange",
    ),
    Annotation(
        "Another view",
        "max(delta(paxos_learner_view_epoch[15s])) > 0",
        "another view",
        "purple",
    ),
    Annotation("A node is gone", 'up{job="synod"} == 0', "{{instance}} does not answer", "red"),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's JSON."""
    return {
        "uid": UID,
        "title": "Synod",
        "tags": ["synod"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "graphTooltip": 1,
        "editable": False,
        "annotations": {"list": [_annotation(mark) for mark in ANNOTATIONS]},
        "templating": {"list": []},
        "panels": list(_panels()),
    }


def queries() -> Iterator[tuple[str, str]]:
    """Every panel's title with each of its expressions, and the annotations'."""
    for _, panels in ROWS:
        for panel in panels:
            for query in panel.queries:
                yield panel.title, query.expression
    for mark in ANNOTATIONS:
        yield mark.name, mark.expression


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for title, panels in ROWS:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
            "panels": [],
        }
        number += 1
        top += 1
        left, height = 0, 0
        for panel in panels:
            stat = panel.kind == "stat"
            width = 6 if stat else 8 if len(panels) > 4 else 12
            if left + width > _WIDTH:
                left, top = 0, top + height
            height = _STAT_HEIGHT if stat else _HEIGHT
            position = {"x": left, "y": top, "w": width, "h": height}
            yield _panel(number, panel, position)
            number += 1
            left += width
        top += height


def _panel(number: int, panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    kind = "state-timeline" if panel.kind == "state" else panel.kind
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.good:
        steps = [part.split() for part in panel.good.split(", ")]
        bounds: list[float | None] = [float(bound) for _, bound in steps]
        bounds[0] = None  # Grafana's lowest step has no bound.
        defaults["color"] = {"mode": "thresholds"}
        defaults["thresholds"] = {
            "mode": "absolute",
            "steps": [
                {"color": colour, "value": bound}
                for (colour, _), bound in zip(steps, bounds, strict=True)
            ],
        }
    return {
        "id": number,
        "type": kind,
        "title": panel.title,
        "description": panel.text,
        "gridPos": position,
        "datasource": _source(),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(kind),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _source(),
                "expr": query.expression,
                "legendFormat": query.legend,
                "range": True,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "stat":
        calculation = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": calculation, "colorMode": "value", "graphMode": "area"}
    if kind == "state-timeline":
        return {"showValue": "never", "mergeValues": True, "legend": {"showLegend": False}}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _annotation(mark: Annotation) -> dict[str, Any]:
    return {
        "name": mark.name,
        "datasource": _source(),
        "enable": True,
        "expr": mark.expression,
        "iconColor": mark.colour,
        "titleFormat": mark.name,
        "textFormat": mark.text,
        "step": "5s",
    }


def _source() -> dict[str, str]:
    return {"type": "prometheus", "uid": "prometheus"}


def text() -> str:
    """The file's contents."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
