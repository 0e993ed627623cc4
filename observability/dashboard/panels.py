"""What a dashboard consists of: rows of panels, queries, annotations."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

RATE = "$__rate_interval"
"""Grafana replaces it by a range of at least four scrapes."""


class Query(NamedTuple):
    """A PromQL expression and the name of its series; `{{label}}` stands for a label."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """A panel; `unit` is one of Grafana's."""

    title: str
    text: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "state"] = "timeseries"
    good: str = ""
    """For a `stat`: the colours with their lower bounds, such as `red 0, green 1`."""


class Row(NamedTuple):
    """A question, and the panels that answer it."""

    title: str
    panels: Sequence[Panel]


class Annotation(NamedTuple):
    """An annotation: a line on every panel wherever the expression is above 0."""

    name: str
    expression: str
    text: str
    colour: str


class Dashboard(NamedTuple):
    """A dashboard; its file has the name of `uid`."""

    uid: str
    title: str
    rows: Sequence[Row]
    annotations: Sequence[Annotation]

    def queries(self) -> Iterator[tuple[str, str]]:
        """Every panel's title with each of its expressions, and the annotations'."""
        for row in self.rows:
            for panel in row.panels:
                for query in panel.queries:
                    yield panel.title, query.expression
        for mark in self.annotations:
            yield mark.name, mark.expression


def quantile(part: float, metric: str, by: str = "le") -> str:
    """The expression of a quantile of a histogram, 0 < `part` < 1."""
    return f"histogram_quantile({part}, sum by ({by}) (rate({metric}_bucket[{RATE}])))"
