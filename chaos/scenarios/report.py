"""A run's findings: JSON, for the terminal, and (`chaos.scenarios.report_page`) an HTML page."""

import statistics
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from chaos.checker.linearizability import CheckResult
from chaos.load.clients import Asked
from chaos.load.writers import percentile
from chaos.scenarios.scenario import Run

BIN_S = 0.5
_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = 72


def summarize(
    run: Run, result: CheckResult | None, *, void: str = "", command: str = "", seconds: float = 0.0
) -> dict[str, Any]:
    """All findings of a run, for JSON. Times are in seconds since the beginning of the run."""
    began_ns = run.began_ns
    asked = run.fleet.asked

    def at(moment_ns: int) -> float:
        return round((moment_ns - began_ns) / 1e9, 3)

    fates: dict[str, int] = {}
    for one in asked:
        fates[one.fate] = fates.get(one.fate, 0) + 1
    if void:
        verdict = "void"
    elif all(finding.holds for finding in run.findings) and run.findings:
        verdict = "passed"
    else:
        verdict = "failed"
    return {
        "scenario": run.scenario.name,
        "says": run.scenario.says,
        "target": run.target.kind,
        "brokers": len(run.target.brokers),
        "verdict": verdict,
        "void": void,
        "command": command,
        "seed": run.seed,
        "seconds": round(seconds, 1),
        "clients": run.fleet.clients,
        "operations": len(asked),
        "moves": run.fleet.moves,
        "fates": fates,
        "findings": [
            {"name": one.name, "holds": one.holds, "evidence": one.evidence} for one in run.findings
        ],
        "outages": [
            {
                "fault": one.fault,
                "at_s": at(one.since_ns),
                "seconds": None if one.seconds is None else round(one.seconds, 3),
                "limit_s": one.limit_s,
            }
            for one in run.outages
        ],
        "moments": [
            {"at_s": at(one.at_ns), "kind": one.kind, "text": one.text} for one in run.moments
        ],
        "bins": _bins(asked, began_ns),
        "bin_s": BIN_S,
        "check": None
        if result is None
        else {
            "verdict": result.verdict,
            "operations": result.operations,
            "unknown": result.unknown,
            "seconds": round(result.seconds, 2),
        },
        "requests": [
            {
                "request": one.request,
                "f": one.f,
                "effects": one.effects,
                "begun_s": at(one.begun_ns),
                "ended_s": at(one.ended_ns),
                "fate": one.fate,
                "slot": one.slot,
                "trace": run.traces.get(one.request),
            }
            for one in run.shown
            if one.request
        ],
    }


def _bins(asked: Sequence[Asked], began_ns: int) -> list[dict[str, Any]]:
    """Throughput and latency of the acknowledged operations, by time."""
    done = [one for one in asked if one.fate == "done"]
    if not done:
        return []
    last = int((max(one.ended_ns for one in done) - began_ns) / 1e9 / BIN_S)
    latencies: list[list[float]] = [[] for _ in range(last + 1)]
    changes = [0] * (last + 1)
    for one in done:
        place = int((one.ended_ns - began_ns) / 1e9 / BIN_S)
        latencies[place].append((one.ended_ns - one.begun_ns) / 1e6)
        changes[place] += one.changes
    return [
        {
            "at_s": place * BIN_S,
            "per_s": len(some) / BIN_S,
            "changes_per_s": changes[place] / BIN_S,
            "p50_ms": round(statistics.median(some), 1) if some else None,
            "p99_ms": round(percentile(sorted(some), 99), 1) if some else None,
        }
        for place, some in enumerate(latencies)
    ]


# -- the terminal --------------------------------------------------------------------------------


def picture(report: dict[str, Any]) -> list[str]:
    """Throughput of writes over time as a line of bars; below it, marks for faults and repairs."""
    bins = report["bins"]
    if not bins:
        return []
    first = next((place for place, one in enumerate(bins) if one["per_s"]), 0)
    shown = bins[first:]
    width = -(-len(shown) // _COLUMNS)
    columns = [shown[i : i + width] for i in range(0, len(shown), width)]
    rates = [sum(one["changes_per_s"] for one in some) / len(some) for some in columns]
    most = max(rates) or 1.0
    bars = "".join(" " if not rate else _BARS[min(7, int(rate / most * 7.999))] for rate in rates)
    marks = [" "] * len(columns)
    start_s = shown[0]["at_s"]
    for moment in report["moments"]:
        mark = {"fault": "✗", "heal": "+"}.get(moment["kind"])
        place = int((moment["at_s"] - start_s) / (width * report["bin_s"]))
        if mark is not None and 0 <= place < len(marks) and marks[place] != "✗":
            marks[place] = mark
    end_s = start_s + len(shown) * report["bin_s"]
    return [
        f"{bars}  up to {most:.0f} writes/s",
        f"{''.join(marks)}  ✗ fault, + repair; {start_s:.0f} s to {end_s:.0f} s",
    ]


def print_report(report: dict[str, Any]) -> None:
    """The verdict with its evidence, for people, on standard output."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print()
    for line in picture(report):
        console.print(Text(line))
    console.print()
    for finding in report["findings"]:
        mark, style = ("ok   ", "green") if finding["holds"] else ("WRONG", "bold red")
        console.print(
            Text.assemble((mark, style), f"  {finding['name']}  ", (finding["evidence"], "dim"))
        )
    console.print()
    fates = ", ".join(f"{count} {fate}" for fate, count in sorted(report["fates"].items()))
    console.print(
        Text(f"{report['operations']} operations by {report['clients']} clients: {fates}")
    )
    if report["void"]:
        console.print(Text(f"VOID: {report['void']}", style="bold yellow"))
    else:
        style = "bold green" if report["verdict"] == "passed" else "bold red"
        console.print(Text(f"{report['scenario']}: {report['verdict'].upper()}", style=style))


def summary_line(report: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table over several scenarios."""
    times = [one["seconds"] for one in report["outages"]]
    known = [seconds for seconds in times if seconds is not None]
    outage = "" if not times else "never" if len(known) < len(times) else f"{max(known):.2f} s"
    wrong = [finding["name"] for finding in report["findings"] if not finding["holds"]]
    return (
        report["scenario"],
        report["verdict"],
        str(report["operations"]),
        outage,
        f"{report['seconds']:.0f} s",
        report["void"] or "; ".join(wrong),
    )
