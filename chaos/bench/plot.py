"""The results as a picture: rate and latency against the number of clients, as SVG.

By hand, since no library for plots is among the dependencies. Its colours follow the reader's
preference for a dark or a light background.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from chaos.bench.cases import LoadCase, size_name
from chaos.bench.recording import Spread, spreads
from chaos.bench.runner import BenchOutcome

_WIDTH, _HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 40, 44
_HEAD, _FOOT = 64, 34

# Okabe and Ito's colours, which people with colour blindness tell apart, made lighter for dark.
_COLOURS = (("#0072b2", "#56b4e9"), ("#d55e00", "#ff9e4a"), ("#009e73", "#4fd1a5"))
_GREY = ("#6b6b6b", "#a8a8a8")
_DASHES = {"p50": "", "p99": "6 4"}


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a panel: for each number of clients the median of the rounds, and its spread."""

    store: str
    part: str
    points: Sequence[tuple[int, Spread]]


def draw(outcome: BenchOutcome) -> str:
    """An SVG: for each mix and size two panels, the rate and the latencies.

    Open loops are left out: their rate is given, not found.
    """
    rows: dict[str, list[LoadCase]] = {}
    for case in outcome.plan.cases:
        if case.rate is None:
            rows.setdefault(f"{case.mix}, {size_name(case.size_bytes)}", []).append(case)
    stores = list(outcome.stores)
    colours = {name: f"s{number}" for number, name in enumerate(stores)}
    width = 2 * _WIDTH
    height = _HEAD + len(rows) * _HEIGHT + _FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="Rate and latency by clients">',
        _style(stores),
        f'<rect class="ground" width="{width}" height="{height}"/>',
        '<text class="title" x="20" y="28">Rate and latency by the number of clients</text>',
        _legend(colours),
    ]
    for number, (title, cases) in enumerate(rows.items()):
        top = _HEAD + number * _HEIGHT
        rates = _curves(outcome, cases, ["rate"])
        latencies = _curves(outcome, cases, list(_DASHES))
        parts.append(_panel(0, top, f"{title}: operations a second", rates, colours))
        parts.append(
            _panel(_WIDTH, top, f"{title}: milliseconds, p50 and p99 (dashed)", latencies, colours)
        )
    parts.append(
        f'<text class="note" x="20" y="{height - 14}">{escape(_note(outcome))}</text>\n</svg>\n'
    )
    return "\n".join(parts)


def _curves(outcome: BenchOutcome, cases: Sequence[LoadCase], parts: Sequence[str]) -> list[Curve]:
    found = []
    for store in outcome.stores:
        for part in parts:
            points = []
            for case in sorted(cases, key=lambda one: one.clients):
                values = spreads(outcome.results.get((case, store), []))
                if part in values and values[part].median > 0:
                    points.append((case.clients, values[part]))
            if points:
                found.append(Curve(store, part, points))
    return found


def _panel(
    left: int, top: int, title: str, curves: Sequence[Curve], colours: dict[str, str]
) -> str:
    """One panel with logarithmic axes: clients, rates and latencies span several decades."""
    out = [f'<g transform="translate({left} {top})">']
    out.append(f'<text class="panel" x="{_LEFT}" y="24">{escape(title)}</text>')
    if not curves:
        out.append(f'<text class="tick" x="{_LEFT}" y="60">nothing was done</text></g>')
        return "\n".join(out)
    clients = sorted({count for curve in curves for count, _ in curve.points})
    lows = [value.least or value.median for curve in curves for _, value in curve.points]
    highs = [value.greatest for curve in curves for _, value in curve.points]
    ticks = ticks_of(min(lows), max(highs))
    lowest, highest = math.log10(ticks[0]), math.log10(ticks[-1])

    def x(count: int) -> float:
        first, last = math.log2(clients[0]), math.log2(clients[-1])
        part = (math.log2(count) - first) / (last - first) if last > first else 0.5
        return _LEFT + 12 + part * (_WIDTH - _LEFT - _RIGHT - 24)

    def y(value: float) -> float:
        part = (math.log10(max(value, ticks[0])) - lowest) / (highest - lowest)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)

    for tick in ticks:
        at = y(tick)
        out.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
        out.append(
            f'<text class="tick" text-anchor="end" x="{_LEFT - 8}" y="{at + 4:.1f}">'
            f"{tick_text(tick)}</text>"
        )
    for count in clients:
        out.append(
            f'<text class="tick" text-anchor="middle" x="{x(count):.1f}" '
            f'y="{_HEIGHT - _BOTTOM + 18}">{count}</text>'
        )
    out.append(
        f'<text class="tick" text-anchor="middle" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" '
        f'y="{_HEIGHT - _BOTTOM + 34}">clients</text>'
    )
    for curve in curves:
        colour = colours[curve.store]
        line = " ".join(f"{x(count):.1f},{y(value.median):.1f}" for count, value in curve.points)
        dash = _DASHES.get(curve.part, "")
        style = f' stroke-dasharray="{dash}"' if dash else ""
        out.append(f'<polyline class="line {colour}" points="{line}"{style}/>')
        for count, value in curve.points:
            at = x(count)
            out.append(
                f'<path class="whisker {colour}" '
                f'd="M{at:.1f} {y(value.least):.1f}V{y(value.greatest):.1f}"/>'
                f'<circle class="dot {colour}" cx="{at:.1f}" cy="{y(value.median):.1f}" r="3.5">'
                f"<title>{escape(curve.store)}, {count} clients, {curve.part}: "
                f"{value.median:g} ({value.least:g} to {value.greatest:g})</title></circle>"
            )
    out.append("</g>")
    return "\n".join(out)


def ticks_of(least: float, greatest: float) -> list[float]:
    """Round values that enclose both, for a logarithmic axis: 1, 2 and 5 of each decade, or whole
    decades if those are more than two.
    """
    decade = math.floor(math.log10(least))
    last = math.ceil(math.log10(greatest))
    steps = (1, 2, 5) if last - decade <= 2 else (1,)
    values = [step * 10.0**power for power in range(decade, last + 1) for step in steps]
    below = max(value for value in values if value <= least * (1 + 1e-9))
    above = min((value for value in values if value >= greatest), default=values[-1])
    if above == below:
        above = below * 10
        values.append(above)
    return [value for value in sorted(values) if below <= value <= above]


def tick_text(value: float) -> str:
    """A value of an axis."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _legend(colours: dict[str, str]) -> str:
    out, x = [], 20
    for name, colour in colours.items():
        out.append(f'<path class="line {colour}" d="M{x} 48h22"/>')
        out.append(f'<text class="tick" x="{x + 28}" y="52">{escape(name)}</text>')
        x += 48 + 8 * len(name)
    return "".join(out)


def _note(outcome: BenchOutcome) -> str:
    plan = outcome.plan
    rounds = "one round" if plan.rounds == 1 else f"median of {plan.rounds} rounds, with spread"
    broker = f", {outcome.broker}" if outcome.broker else ""
    return f"synod bench, {rounds} of {plan.seconds:g} s{broker}"


def _style(stores: Sequence[str]) -> str:
    light: list[str] = []
    dark: list[str] = []
    for number in range(len(stores)):
        pair = _COLOURS[number] if number < len(_COLOURS) else _GREY
        for rules, colour in zip((light, dark), pair, strict=True):
            rules.append(f".s{number}{{stroke:{colour}}}.dot.s{number}{{fill:{colour}}}")
    return (
        "<style>"
        "text{font-family:system-ui,sans-serif}"
        ".ground{fill:#fff}.title{font-size:17px;font-weight:600;fill:#1b1b1b}"
        ".panel{font-size:13px;font-weight:600;fill:#1b1b1b}"
        ".tick,.note{font-size:12px;fill:#555}"
        ".grid{stroke:#ddd;stroke-width:1;fill:none}"
        ".line{fill:none;stroke-width:2}.whisker{stroke-width:1.5;opacity:.55;fill:none}"
        f"{''.join(light)}"
        "@media(prefers-color-scheme:dark){"
        ".ground{fill:#14171a}.title,.panel{fill:#eee}.tick,.note{fill:#aaa}.grid{stroke:#333}"
        f"{''.join(dark)}"
        "}</style>"
    )
