"""A picture of operations that cannot be ordered: one self-contained HTML page.

Processes are lanes, operations are bars from their beginning to their end, and a line connects the
longest possible order, as in Porcupine's pictures (Athalye, "Porcupine", 2017).
"""

import json
from html import escape

from chaos.checker.history import Json, PathStep, RecordedOperation
from chaos.checker.window import Window

_LANE_PX = 56
_BAR_PX = 30
_LEFT_PX = 96
_COLUMN_PX = 96
_TOP_PX = 16

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #667; --paper: #fff; --lane: #f2f3f5;
  --bar: #cfe0f5; --edge: #4a78b5; --bad: #f7c9c4; --bad-edge: #c0392b; --way: #2b7a3d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --dim: #99a; --paper: #16181b;
  --lane: #1f2226; --bar: #24405f; --edge: #7fb0ea; --bad: #5b2320; --bad-edge: #ff7a6b;
  --way: #6fd08c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; } .scroll { overflow-x: auto; } .dim { color: var(--dim); }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .dim { fill: var(--dim); }
.lane { fill: var(--lane); } .bar { fill: var(--bar); stroke: var(--edge); }
.bystander { opacity: .35; } .unplaced { fill: var(--bad); stroke: var(--bad-edge); }
.open { stroke-dasharray: 4 3; }
.way { fill: none; stroke: var(--way); stroke-width: 2; } .point { fill: var(--way); }
svg .number { fill: var(--paper); font-weight: 600; text-anchor: middle; font-size: 10px; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .15rem .9rem .15rem 0; }
.mark { color: var(--bad-edge); font-weight: 600; }
"""


def describe(operation: RecordedOperation) -> str:
    """An operation in a few words."""
    words = " and ".join(_describe_step(step, operation) for step in operation.steps)
    if operation.outcome == "refused":
        return f"{words}: refused"
    return f"{words}: unknown" if operation.outcome == "unknown" else words


def _describe_step(step: PathStep, operation: RecordedOperation) -> str:
    match step.action:
        case "read" if operation.outcome == "ok":
            return f"read {step.path} → {_text(step.value)}"
        case "write":
            return f"write {step.path} = {_text(step.value)}"
        case "cas":
            return f"cas {step.path} {_text(step.expected)} ⇒ {_text(step.value)}"
    return f"{step.action} {step.path}"


def _text(value: Json) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False)


def headline(window: Window) -> str:
    """What a window shows, in one sentence."""
    paths = ", ".join(window.paths[:4]) + (" and others" if len(window.paths) > 4 else "")
    before = "with nothing there at first" if window.from_start else "whatever was there before"
    count = len(window.operations)
    if count == 1:
        return f"One operation on {paths} has no place, {before}."
    return f"{count} operations on {paths} have no order, {before}."


class Layout:
    """Positions in the picture. Each event has its own column, so that overlaps are visible."""

    def __init__(self, window: Window) -> None:
        shown = window.around
        known_ends = [one.ended for one in shown if one.ended is not None]
        events = sorted({*(one.invoked for one in shown), *known_ends})
        self._column = {event: number for number, event in enumerate(events)}
        self._last = len(events)
        self.lanes = {
            process: number
            for number, process in enumerate(
                dict.fromkeys(one.process for one in sorted(shown, key=lambda one: one.invoked))
            )
        }
        self.width = _LEFT_PX + (len(events) + 1) * _COLUMN_PX
        self.height = _TOP_PX * 2 + len(self.lanes) * _LANE_PX

    def x(self, event: int | None) -> float:
        column = self._last if event is None else self._column[event]
        return _LEFT_PX + column * _COLUMN_PX

    def y(self, operation: RecordedOperation) -> float:
        return _TOP_PX + self.lanes[operation.process] * _LANE_PX + (_LANE_PX - _BAR_PX) / 2

    def points(self, window: Window) -> list[tuple[float, float]]:
        """The point at which each operation of the order takes effect, as early as possible."""
        step = _COLUMN_PX / (len(window.order) + 1)
        points: list[tuple[float, float]] = []
        x = 0.0
        for operation in window.order:
            x = max(x, self.x(operation.invoked)) + step
            points.append((x, self.y(operation) + _BAR_PX / 2))
        return points


def _lanes(layout: Layout) -> str:
    parts = []
    for process, number in layout.lanes.items():
        top = _TOP_PX + number * _LANE_PX
        parts.append(
            f'<rect class="lane" x="0" y="{top + 2}" width="{layout.width}" '
            f'height="{_LANE_PX - 4}" rx="4"/>'
            f'<text class="dim" x="10" y="{top + _LANE_PX / 2 + 4}">process {process}</text>'
        )
    return "".join(parts)


def _bars(layout: Layout, window: Window) -> str:
    core = {operation.op for operation in window.operations}
    unplaced = {operation.op for operation in window.unplaced}
    parts = []
    for number, operation in enumerate(window.around):
        x, y = layout.x(operation.invoked), layout.y(operation)
        width = layout.x(operation.ended) - x
        kind = "bar" + (" unplaced" if operation.op in unplaced else "")
        kind += " open" if operation.ended is None else ""
        outer = "" if operation.op in core else ' class="bystander"'
        label = escape(describe(operation))
        parts.append(
            f"<g{outer}><title>{escape(_title(operation))}</title>"
            f'<clipPath id="c{number}"><rect x="{x}" y="{y}" width="{width}" height="{_BAR_PX}"/>'
            f'</clipPath><rect class="{kind}" x="{x}" y="{y}" width="{width}" '
            f'height="{_BAR_PX}" rx="4"/><text x="{x + 6}" y="{y + 12}" '
            f'clip-path="url(#c{number})">{label}</text></g>'
        )
    return "".join(parts)


def _title(operation: RecordedOperation) -> str:
    took = ""
    if operation.ended_ns is not None:
        took = f", {(operation.ended_ns - operation.invoked_ns) / 1e6:.3f} ms"
    return (
        f"{describe(operation)} — operation {operation.op}, process {operation.process}, "
        f"{lines_of(operation)}{took}"
    )


def lines_of(operation: RecordedOperation) -> str:
    """The lines of an operation in its file."""
    first = operation.invoked + 1
    return (
        f"lines {first}–{operation.ended + 1}" if operation.ended is not None else f"line {first}"
    )


def _order_line(layout: Layout, window: Window) -> str:
    points = layout.points(window)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(
        f'<circle class="point" cx="{x:.1f}" cy="{y + 6:.1f}" r="7"/>'
        f'<text class="number" x="{x:.1f}" y="{y + 9.5:.1f}">{number}</text>'
        for number, (x, y) in enumerate(points, start=1)
    )
    moved = " ".join(f"{x:.1f},{y + 6:.1f}" for x, y in points) if line else ""
    return f'<polyline class="way" points="{moved}"/>{dots}'


def _rows(window: Window) -> str:
    number = {operation.op: place for place, operation in enumerate(window.order, start=1)}
    unplaced = {operation.op for operation in window.unplaced}
    rows = []
    for operation in window.operations:
        place = str(number.get(operation.op, ""))
        if operation.op in unplaced:
            place = '<span class="mark">no place</span>'
        cells = (place, escape(describe(operation)), f"{operation.process}", lines_of(operation))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "".join(rows)


def render(window: Window, title: str) -> str:
    """The page."""
    layout = Layout(window)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}: not linearizable</h1><p>{escape(headline(window))}</p>"
        f'<div class="scroll"><svg role="img" width="{layout.width}" height="{layout.height}" '
        f'viewBox="0 0 {layout.width} {layout.height}"><title>{escape(headline(window))}</title>'
        f"{_lanes(layout)}{_bars(layout, window)}{_order_line(layout, window)}</svg></div>"
        '<p class="dim">Bars run from an operation\'s beginning to its end; dashed ones have no '
        "known outcome and may have happened at any time after they began, or never. The numbered "
        "line is the longest possible order. Red operations happened, but have no place after it. "
        "Pale ones were under way, but are not part of the contradiction. Distances are in events, "
        "not in time; point at a bar for its times.</p>"
        "<table><tr><th>place</th><th>operation</th><th>process</th><th>in the file</th></tr>"
        f"{_rows(window)}</table></body></html>\n"
    )
