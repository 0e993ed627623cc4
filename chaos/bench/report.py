"""The results of a run as JSON for programs and as a table for people."""

from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from chaos.bench.cases import LoadCase
from chaos.bench.machine import machine
from chaos.bench.probes import MESSAGE_BYTES, PAGE_BYTES, median_probe
from chaos.bench.recording import LoadResult, Spread, ratios, shaped, spreads
from chaos.bench.runner import BenchOutcome

FORMAT = 1
"""Rises if a field changes its meaning or goes; new ones may come at any time."""

OURS = "Synod"

LIMITS = {
    "commit": f"disk: pwrite {PAGE_BYTES} B, fdatasync",
    "hop": f"broker: a hop of {MESSAGE_BYTES} B",
    "messages": f"broker: messages of {MESSAGE_BYTES} B",
}


def as_json(outcome: BenchOutcome) -> dict[str, Any]:
    """Everything. Rates are a second, latencies milliseconds; a ratio is Synod / the other."""
    plan = outcome.plan
    return {
        "format": FORMAT,
        "synod": version("synod"),
        "seconds": outcome.seconds,
        "machine": {
            **machine(),
            "busy_before_cores": outcome.busy_before_cores,
            "busy_between_cores": outcome.busy_between_cores,
        },
        "plan": {"rounds": plan.rounds, "seconds": plan.seconds, "seed": plan.seed},
        "broker": outcome.broker,
        "stores": outcome.stores,
        "left_out": outcome.left_out,
        "limits": {
            name: {"median": median_probe(rounds), "rounds": [asdict(one) for one in rounds]}
            for name, rounds in outcome.probes.items()
        },
        "cases": [_case(outcome, case) for case in plan.cases],
    }


def _case(outcome: BenchOutcome, case: LoadCase) -> dict[str, Any]:
    stores: dict[str, Any] = {}
    ours = outcome.results.get((case, OURS), [])
    for name in outcome.stores:
        rounds = outcome.results.get((case, name))
        if rounds is None:
            continue
        stores[name] = {
            "spread": shaped(spreads(rounds)),
            "rounds": [asdict(one) for one in rounds],
        }
        if name != OURS and ours:
            stores[name]["ratio"] = shaped(ratios(ours, rounds))
    return {
        "mix": f"{case.mix}",
        "bytes": case.size_bytes,
        "clients": case.clients,
        "loop": "closed" if case.rate is None else "open",
        "offered_rate": case.rate,
        "in_limits": in_limits(outcome, case),
        "stores": stores,
    }


def in_limits(outcome: BenchOutcome, case: LoadCase) -> dict[str, float]:
    """Synod's figures in units of the limits below it.

    `hops` and `commits`: how many, one after the other, take as long as its median operation.
    `messages`: how many the broker passes in the time that an operation takes of all together.
    """
    rounds = outcome.results.get((case, OURS), [])
    of_ours = spreads(rounds)
    found: dict[str, float] = {}
    for unit, limit in (("hops", "hop"), ("commits", "commit")):
        if limit in outcome.probes and "p50" in of_ours:
            found[unit] = round(
                of_ours["p50"].median / median_probe(outcome.probes[limit])["p50"], 2
            )
    if "messages" in outcome.probes and of_ours and of_ours["rate"].median:
        rate = median_probe(outcome.probes["messages"])["rate"]
        found["messages"] = round(rate / of_ours["rate"].median, 2)
    return found


# -- for people -----------------------------------------------------------------------------------


def results_table(outcome: BenchOutcome) -> Table:
    """One row for each case and store."""
    table = _table("operation", "clients", "store")
    for name in ("a second", "least–most", "p50 ms", "p99 ms", "p99.9 ms", "cpu ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for case, name, rounds, first in _rows(outcome):
        of_store = spreads(rounds)
        rate = of_store["rate"]
        cells = [
            *_head(case, first),
            name,
            figure(rate.median),
            f"{figure(rate.least)}–{figure(rate.greatest)}",
            *(_median(of_store, part) for part in ("p50", "p99", "p99.9")),
            _cpu(rounds),
        ]
        table.add_row(*map(Text, cells), style="bold" if name == OURS else "")
    return table


def ratios_table(outcome: BenchOutcome) -> Table:
    """Synod / each other store. For a rate more is better, for a time less."""
    table = _table("operation", "clients", "Synod /")
    for name in ("a second", "least–most", "p50", "p99", "p99.9"):
        table.add_column(name, justify="right", no_wrap=True)
    last: LoadCase | None = None
    for case, name, rounds, _ in _rows(outcome):
        compared = ratios(outcome.results.get((case, OURS), []), rounds)
        if name == OURS or "rate" not in compared:
            continue
        rate = compared["rate"]
        cells = [
            *_head(case, case != last),
            name,
            figure(rate.median),
            f"{figure(rate.least)}–{figure(rate.greatest)}",
            *(_median(compared, part) for part in ("p50", "p99", "p99.9")),
        ]
        table.add_row(*map(Text, cells))
        last = case
    return table


def _rows(outcome: BenchOutcome) -> Iterator[tuple[LoadCase, str, list[LoadResult], bool]]:
    """Each case with each store that was measured, and whether it is the case's first."""
    for case in outcome.plan.cases:
        first = True
        for name in outcome.stores:
            if rounds := outcome.results.get((case, name)):
                yield case, name, rounds, first
                first = False


def _head(case: LoadCase, first: bool) -> tuple[str, str]:
    return (case.name, f"{case.clients}") if first else ("", "")


def _table(*texts: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name in texts:
        justify: Literal["left", "right"] = "right" if name == "clients" else "left"
        table.add_column(name, justify=justify, no_wrap=True)
    return table


def limits_table(outcome: BenchOutcome) -> Table:
    """One row for each limit that was probed in the same run."""
    table = _table("limit")
    for name in ("a second", "least–most", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, what in LIMITS.items():
        rounds = outcome.probes.get(name)
        if rounds is None:
            continue
        middle = median_probe(rounds)
        rates = [one.rate for one in rounds]
        cells = [
            what,
            figure(middle["rate"]),
            f"{figure(min(rates))}–{figure(max(rates))}",
            *(figure(middle[part]) if part in middle else "" for part in ("p50", "p99")),
        ]
        table.add_row(*map(Text, cells))
    return table


def remarks(outcome: BenchOutcome) -> list[str]:
    """Sentences below the tables: what was compared, in which units, on which machine."""
    about = machine()
    lines = [f"{name}: {what}" for name, what in outcome.stores.items()]
    if outcome.broker:
        lines.append(f"Broker: {outcome.broker}")
    for case, name, rounds, _ in _rows(outcome):
        if not_done := _not_done(rounds):
            lines.append(f"{name}, {case.name}, {case.clients} clients: {not_done}")
    lines += [f"Not measured: {what}: {why}" for what, why in outcome.left_out.items()]
    for case in outcome.plan.cases:
        units = in_limits(outcome, case)
        parts = [f"{figure(units[unit])} {unit}" for unit in ("hops", "commits") if unit in units]
        if parts and case.rate is None and case.clients == 1:
            lines.append(f"{case.name}, one client: the median takes as long as {', '.join(parts)}")
    between = outcome.busy_between_cores
    lines.append(
        f"Machine: {about['cores']} cores, {about['processor']}, {about['memory_mib']} MiB, "
        f"{about['system']}, Python {about['python']}; other work before the run "
        f"{outcome.busy_before_cores:.2f} cores, and with all stores at rest "
        f"{min(between):.2f} to {max(between):.2f}"
    )
    full = sorted(
        {
            f"{store}, {case.name}, {case.clients} clients"
            for (case, store), rounds in outcome.results.items()
            if max(one.load_cores for one in rounds) > LOAD_CORES_MOST
        }
    )
    if full:
        lines.append(
            f"The load itself took more than {LOAD_CORES_MOST:g} of a core, so it may be the "
            f"limit: {'; '.join(full)}"
        )
    return lines


LOAD_CORES_MOST = 0.85
"""The load is one process; of one that uses nearly a whole core the store might take more."""


def figure(value: float) -> str:
    """A number in three digits, or all that are before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _median(values: dict[str, Spread], name: str) -> str:
    return figure(values[name].median) if name in values else ""


def _cpu(rounds: list[LoadResult]) -> str:
    """The processor time of one operation, of all processes of the store."""
    totals = sorted(sum(one.cpu_ms.values()) for one in rounds if one.cpu_ms)
    return figure(totals[len(totals) // 2]) if totals else ""


def _not_done(rounds: list[LoadResult]) -> str:
    """What of all rounds was not done, and why, most frequent first."""
    parts = []
    for what, count in (
        ("refused", sum(one.refused for one in rounds)),
        ("failed", sum(one.failed for one in rounds)),
        ("never sent", sum(one.unsent for one in rounds)),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    problems: dict[str, int] = {}
    for one in rounds:
        for text, count in one.problems.items():
            problems[text] = problems.get(text, 0) + count
    if problems:
        parts.append(max(problems, key=lambda text: problems[text]))
    return ", ".join(parts)
