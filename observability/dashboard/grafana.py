"""Turns a dashboard into Grafana's JSON with Grafana's own builders.

They belong to Grafana 11.6, whose schema later versions of Grafana migrate from by themselves. The
builders are a dependency of the development only: nodes and containers read the finished files.
"""

import json
from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from observability.dashboard.panels import Annotation, Dashboard, Panel, Query

GRID_COLUMNS = 24
_STAT_ROWS = 4
_PANEL_ROWS = 8
_STEP = "5s"
"""How densely annotations are evaluated, and how often the dashboard is: with every scrape."""

_TAG = "synod"
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="prometheus")

AnyPanel = series.Panel | stat.Panel | statetimeline.Panel


def json_of(description: Dashboard) -> str:
    """The contents of the dashboard's file."""
    built = _builder(description).build()
    built.annotations.list_val = [_PrometheusAnnotation(mark) for mark in description.annotations]
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _builder(description: Dashboard) -> dashboard.Dashboard:
    board = (
        dashboard.Dashboard(description.title)
        .uid(description.uid)
        .tags([_TAG])
        .link(_links())
        .timezone("browser")
        .time("now-15m", "now")
        .refresh(_STEP)
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .variables([])
    )
    number = 0
    for row in description.rows:
        number += 1
        board.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            board.with_panel(_panel(panel, len(row.panels)).id(number))
    return board


def _links() -> dashboard.DashboardLink:
    """Links to all dashboards of Synod."""
    return (
        dashboard.DashboardLink("Dashboards")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([_TAG])
        .keep_time(True)
    )


def _panel(panel: Panel, among: int) -> AnyPanel:
    """A panel that is one of `among` in its row; the builder finds its place."""
    made = _of_kind(panel)
    is_stat = panel.kind == "stat"
    width = GRID_COLUMNS // 4 if is_stat else GRID_COLUMNS // (3 if among > 4 else 2)
    made.title(panel.title).description(panel.text).datasource(_SOURCE)
    made.span(width).height(_STAT_ROWS if is_stat else _PANEL_ROWS)
    made.unit(panel.unit).min(0)
    for index, query in enumerate(panel.queries):
        made.with_target(_target(query, chr(ord("A") + index)))
    if panel.good:
        made.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        made.thresholds(_thresholds(panel.good))
    return made


def _of_kind(panel: Panel) -> AnyPanel:
    match panel.kind:
        case "stat":
            latest = common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)
            return (
                stat.Panel()
                .reduce_options(latest)
                .color_mode(common_models.BigValueColorMode.VALUE)
                .graph_mode(common_models.BigValueGraphMode.AREA)
            )
        case "state":
            return (
                statetimeline.Panel()
                .show_value(common_models.VisibilityMode.NEVER)
                .merge_values(True)
                .legend(common.VizLegendOptions().show_legend(False))
            )
        case "timeseries":
            return (
                series.Panel()
                .legend(
                    common.VizLegendOptions()
                    .display_mode(common_models.LegendDisplayMode.LIST)
                    .placement(common_models.LegendPlacement.BOTTOM)
                    .show_legend(True)
                )
                .tooltip(
                    common.VizTooltipOptions()
                    .mode(common_models.TooltipDisplayMode.MULTI)
                    .sort(common_models.SortOrder.DESCENDING)
                )
            )


def _target(query: Query, reference: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(query.expression)
        .legend_format(query.legend)
        .range()
        .ref_id(reference)
        .datasource(_SOURCE)
    )


def _thresholds(good: str) -> dashboard.ThresholdsConfig:
    steps = [part.split() for part in good.split(", ")]
    # Grafana's lowest step has no bound.
    bounds: Sequence[float | None] = [None, *(float(bound) for _, bound in steps[1:])]
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps(
            [
                models.Threshold(color=colour, value=bound)
                for (colour, _), bound in zip(steps, bounds, strict=True)
            ]
        )
    )


class _PrometheusAnnotation(models.AnnotationQuery):
    """With what Grafana's Prometheus data source reads beside the schema of all annotations."""

    def __init__(self, mark: Annotation) -> None:
        super().__init__(
            name=mark.name, datasource=_SOURCE, icon_color=mark.colour, expr=mark.expression
        )
        self._text = mark.text

    def to_json(self) -> dict[str, object]:
        """See `AnnotationQuery.to_json`."""
        own = {"titleFormat": self.name, "textFormat": self._text, "step": _STEP}
        return {**super().to_json(), **own}
