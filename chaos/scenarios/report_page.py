"""The report as one self-contained HTML page."""

from html import escape
from typing import Any

_WIDTH = 1000
_HEIGHT = 180
_LEFT = 46
_LANE_PX = 66
_ROW_PX = 15
_EVENTS_MAX = 120

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #667; --paper: #fff; --soft: #f2f3f5;
  --bar: #7fa8d9; --low: #2f6db5; --high: #b58a2f; --bad: #c0392b; --good: #2b7a3d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --dim: #99a; --paper: #16181b;
  --soft: #1f2226; --bar: #3f6da3; --low: #7fb0ea; --high: #e0b860; --bad: #ff7a6b;
  --good: #6fd08c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.dim { color: var(--dim); } .passed, .ok { color: var(--good); } .failed, .void, .no { color:
  var(--bad); } b.ok, b.no { display: inline-block; width: 4.5em; }
.scroll { overflow-x: auto; } svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
.bar { fill: var(--bar); } .low, .high { fill: none; stroke-width: 1.5; } .low { stroke: var(--low);
  } .high { stroke: var(--high); } .axis { stroke: var(--dim); stroke-width: .5; }
.fault { stroke: var(--bad); } .heal { stroke: var(--good); } .change { stroke: var(--dim);
  stroke-dasharray: 2 3; } .arrow { stroke: var(--low); } .tip { fill: var(--low); }
code { background: var(--soft); padding: .1em .35em; border-radius: .25em; }
td, th { text-align: left; padding: .1rem 1rem .1rem 0; vertical-align: top; }
details { margin: .4rem 0; }
"""


def render(report: dict[str, Any]) -> str:
    """The page."""
    title = f"chaos {report['scenario']}: {report['verdict']}"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{escape(report["scenario"])}: <span class="{report["verdict"]}">'
        f"{report['verdict']}</span></h1><p>{escape(report['says'])}.</p>",
        f'<p class="failed">{escape(report["void"])}</p>' if report["void"] else "",
        "<h2>Verdict</h2>",
        _findings(report),
        "<h2>Throughput</h2>",
        _throughput(report),
        "<h2>Latency</h2>",
        _latency(report),
        "<h2>Time without service</h2>",
        _outages(report),
        "<h2>What happened</h2>",
        _moments(report),
        "<h2>Requests around the faults</h2>",
        _requests(report),
        "<h2>Run it again</h2>",
        f"<p><code>{escape(report['command'])}</code></p>",
        f'<p class="dim">{report["operations"]} operations by {report["clients"]} clients in '
        f"{report['seconds']} s on {escape(report['target'])}; seed {report['seed']}.</p>",
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _findings(report: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><td><b class="{"ok" if one["holds"] else "no"}">'
        f"{'holds' if one['holds'] else 'WRONG'}</b></td><td>{escape(one['name'])}</td>"
        f'<td class="dim">{escape(one["evidence"])}</td></tr>'
        for one in report["findings"]
    )
    return f"<table>{rows}</table>"


class _Axes:
    """Seconds to the right, a figure upwards."""

    def __init__(self, report: dict[str, Any], most: float) -> None:
        self.seconds: float = max(1.0, len(report["bins"]) * float(report["bin_s"]))
        self.most = most or 1.0

    def x(self, at_s: float) -> float:
        return _LEFT + at_s / self.seconds * (_WIDTH - _LEFT)

    def y(self, value: float) -> float:
        return _HEIGHT * (1 - min(value, self.most) / self.most)

    def frame(self, report: dict[str, Any], unit: str, inside: str) -> str:
        marks = "".join(
            f'<line class="{one["kind"]}" x1="{self.x(one["at_s"]):.1f}" y1="0" '
            f'x2="{self.x(one["at_s"]):.1f}" y2="{_HEIGHT}"><title>'
            f"{one['at_s']:.2f} s: {escape(one['text'])}</title></line>"
            for one in report["moments"]
            if one["kind"] != "note"
        )
        step = max(1, round(self.seconds / 10))
        ticks = "".join(
            f'<text x="{self.x(second):.0f}" y="{_HEIGHT + 14}">{second} s</text>'
            for second in range(0, int(self.seconds) + 1, step)
        )
        return (
            f'<div class="scroll"><svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT + 20}" '
            f'width="{_WIDTH}" height="{_HEIGHT + 20}"><line class="axis" x1="{_LEFT}" '
            f'y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>'
            f'<text x="0" y="12">{self.most:.0f}{unit}</text>{inside}{marks}{ticks}</svg></div>'
        )


def _throughput(report: dict[str, Any]) -> str:
    bins = report["bins"]
    axes = _Axes(report, max((one["per_s"] for one in bins), default=1.0))
    width = (_WIDTH - _LEFT) / max(1, len(bins)) * 0.9
    bars = "".join(
        f'<rect class="bar" x="{axes.x(one["at_s"]):.1f}" y="{axes.y(one["per_s"]):.1f}" '
        f'width="{width:.1f}" height="{_HEIGHT - axes.y(one["per_s"]):.1f}"><title>'
        f"{one['at_s']} s: {one['per_s']:.0f} operations a second, of them "
        f"{one['changes_per_s']:.0f} writes</title></rect>"
        for one in bins
    )
    return axes.frame(report, "/s", bars) + (
        '<p class="dim">Acknowledged operations a second. Red lines are faults, green ones '
        "repairs, dotted ones elections and views; point at them.</p>"
    )


def _latency(report: dict[str, Any]) -> str:
    bins = [one for one in report["bins"] if one["p50_ms"] is not None]
    axes = _Axes(report, max((one["p99_ms"] for one in bins), default=1.0))
    lines = "".join(
        f'<polyline class="{name}" points="'
        + " ".join(f"{axes.x(one['at_s']):.1f},{axes.y(one[key]):.1f}" for one in bins)
        + '"/>'
        for name, key in (("low", "p50_ms"), ("high", "p99_ms"))
    )
    return axes.frame(report, " ms", lines) + (
        '<p class="dim">Of acknowledged operations: median (blue) and 99th percentile.</p>'
    )


def _outages(report: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one['fault'])}</td><td>"
        f"{'never' if one['seconds'] is None else format(one['seconds'], '.2f') + ' s'}</td>"
        f'<td class="dim">at most {one["limit_s"]:g} s</td></tr>'
        for one in report["outages"]
    )
    return (
        f"<table>{rows}</table>"
        '<p class="dim">From the fault to the end of the first write that began after it; where '
        "the limit is one of gaps, the longest time without an acknowledged write.</p>"
    )


def _moments(report: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{one["at_s"]:.2f} s</td><td class="{"no" if one["kind"] == "fault" else ""}">'
        f"{escape(one['text'])}</td></tr>"
        for one in report["moments"]
    )
    return f"<table>{rows}</table>"


def _requests(report: dict[str, Any]) -> str:
    parts = []
    for one in report["requests"]:
        changes = ", ".join(
            f"/{path} = {'absent' if value is None else value}"
            for path, value in one["effects"].items()
        )
        head = (
            f"{one['begun_s']:.2f} s to {one['ended_s']:.2f} s: {one['f']} {changes}: "
            f"{one['fate']}, slot {one['slot']}"
        )
        trace = one["trace"]
        drawing = _sequence(trace["events"]) if trace else '<p class="dim">Not traced.</p>'
        parts.append(f"<details><summary>{escape(head)}</summary>{drawing}</details>")
    return "".join(parts) or '<p class="dim">None was kept.</p>'


def _sequence(events: list[dict[str, Any]]) -> str:
    """The messages between nodes: nodes are lanes, time runs down."""
    events = sorted(events, key=lambda event: event["time_us"])[:_EVENTS_MAX]
    nodes = sorted(
        {event["node"] for event in events},
        key=lambda name: (_ROLES.index(name.partition("-")[0]), name),
    )
    lanes = {name: 60 + place * _LANE_PX for place, name in enumerate(nodes)}
    side = 60 + len(nodes) * _LANE_PX
    height = 44 + len(events) * _ROW_PX
    drawn = [
        f'<text x="{x}" y="14" text-anchor="middle">{escape(name)}</text>'
        f'<line class="axis" x1="{x}" y1="20" x2="{x}" y2="{height}"/>'
        for name, x in lanes.items()
    ]
    sent: dict[str, tuple[int, int]] = {}
    """Where the latest message of each id left; one that is sent again has the same."""
    for number, event in enumerate(events):
        x, y = lanes[event["node"]], 34 + number * _ROW_PX
        if event["kind"] == "sent":
            sent[event["message_id"]] = x, y
        if event["kind"] == "received":
            if event["message_id"] in sent:
                from_x, from_y = sent[event["message_id"]]
                drawn.append(f'<line class="arrow" x1="{from_x}" y1="{from_y}" x2="{x}" y2="{y}"/>')
        else:
            text = f"{event['node']} {event['kind']}: {event['summary']}"
            drawn.append(f'<text x="{side}" y="{y + 4}">{escape(text)}</text>')
        drawn.append(
            f'<circle class="tip" cx="{x}" cy="{y}" r="2.5"><title>'
            f"{escape(event['kind'])} {escape(event['summary'])}</title></circle>"
        )
    width = side + 560
    return (
        f'<div class="scroll"><svg role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(drawn)}</svg></div>'
    )


_ROLES = ("gateway", "proposer", "acceptor", "learner", "store")
