"""What one load showed: rates, percentiles, refusals; and what several rounds say together."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from chaos.bench.cases import Verb
from chaos.load.writers import percentile

PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}

RETRY_AFTER = "retry-after"


class OperationEnd(NamedTuple):
    """How one operation ended.

    `refused` is a 503: certain that nothing happened, and the client may come back. `failed` is
    everything else that is no success, no answer included.
    """

    fate: Literal["done", "refused", "failed"]
    problem: str = ""
    retry_after: bool = False


DONE = OperationEnd("done")


@dataclass(slots=True)
class LoadResult:
    """The figures of one load. Latencies are milliseconds; see `Recording.result`."""

    seconds: float
    done: int
    rate: float
    """Operations done in a second."""
    latency_ms: dict[str, float]
    by_verb: dict[str, dict[str, float]]
    """The same for reads and for writes, where a mix has both."""
    refused: int = 0
    refused_without_retry_after: int = 0
    refused_ms: dict[str, float] = field(default_factory=dict)
    """How long the refusals took; empty without any."""
    failed: int = 0
    unsent: int = 0
    """Requests of an open loop that were due, but for which no connection became free in time."""
    problems: dict[str, int] = field(default_factory=dict)
    load_cores: float = 0.0
    """The processor time of the load itself in a second: near 1.0 the load is the limit."""
    operations: int = 0
    """All that were done, also before and after the time that counts."""
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """The processor time of each of `operations`, by kinds of processes of the store."""


class Recording:
    """The operations of one load, between two moments of `time.perf_counter_ns`.

    What began before `from_ns` is warm-up.
    """

    def __init__(self, from_ns: int, until_ns: int, clients: int) -> None:
        self.from_ns = from_ns
        self.until_ns = until_ns
        self._clients = clients
        self._took_ns: dict[str, list[int]] = {"read": [], "write": []}
        self._ends_ns: list[int] = []
        self._refused_ns: list[int] = []
        self._without_retry_after = 0
        self._failed = 0
        self._operations = 0
        self._unsent_ns: list[int] = []
        self._problems: Counter[str] = Counter()

    def add(self, verb: Verb, began_ns: int, ended_ns: int, end: OperationEnd) -> None:
        """One operation. In an open loop it began when it was due, however late it was sent."""
        if end.fate == "done":
            self._operations += 1
            if ended_ns >= self.from_ns:
                self._ends_ns.append(ended_ns)
        if began_ns < self.from_ns:
            return
        if end.fate == "done":
            self._took_ns[verb].append(ended_ns - began_ns)
            return
        self._problems[end.problem] += 1
        if end.fate == "refused":
            self._refused_ns.append(ended_ns - began_ns)
            self._without_retry_after += not end.retry_after
        else:
            self._failed += 1

    def add_unsent(self, due_ns: int) -> None:
        """A request was due, but was never sent."""
        if due_ns >= self.from_ns:
            self._unsent_ns.append(self.until_ns - due_ns)

    def result(self, load_cores: float = 0.0) -> LoadResult:
        """The figures.

        The rate counts what ended within the time; if that is less than one operation of each
        client, as with large files, the time ends with the last one. The latencies are those of all
        operations that began within it, however long they took, and of an open loop also those of
        requests that were never sent, with the time for which they had waited in the end: to leave
        them out would hide exactly the slow ones.
        """
        until_ns = self.until_ns
        done = sum(end <= until_ns for end in self._ends_ns)
        if done < self._clients and self._ends_ns:
            until_ns = max(self.until_ns, *self._ends_ns)
            done = len(self._ends_ns)
        seconds = (until_ns - self.from_ns) / 1e9
        took_ns = [*self._took_ns["read"], *self._took_ns["write"], *self._unsent_ns]
        verbs = [verb for verb, times in self._took_ns.items() if times]
        return LoadResult(
            seconds=round(seconds, 3),
            done=done,
            rate=round(done / seconds, 2),
            latency_ms=percentiles_ms(took_ns),
            by_verb=(
                {verb: percentiles_ms(self._took_ns[verb]) for verb in verbs}
                if len(verbs) > 1
                else {}
            ),
            refused=len(self._refused_ns),
            refused_without_retry_after=self._without_retry_after,
            refused_ms=percentiles_ms(self._refused_ns),
            failed=self._failed,
            unsent=len(self._unsent_ns),
            problems=dict(self._problems.most_common()),
            load_cores=round(load_cores, 2),
            operations=self._operations,
        )


def percentiles_ms(times_ns: Sequence[int]) -> dict[str, float]:
    """The `PERCENTILES` of times in nanoseconds, in milliseconds; empty without any."""
    if not times_ns:
        return {}
    ordered = sorted(times_ns)
    return {name: round(percentile(ordered, part) / 1e6, 3) for name, part in PERCENTILES.items()}


class Spread(NamedTuple):
    """The median of several rounds, the least and the greatest of them."""

    median: float
    least: float
    greatest: float

    def json(self) -> dict[str, float]:
        """For programs."""
        return {name: round(value, 4) for name, value in self._asdict().items()}


def spread(values: Sequence[float]) -> Spread | None:
    """What several rounds say together; `None` if there is none."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values))


def figures_of(result: LoadResult) -> dict[str, float]:
    """The figures that are compared: the rate and the percentiles."""
    return {"rate": result.rate, **result.latency_ms}


def spreads(rounds: Sequence[LoadResult]) -> dict[str, Spread]:
    """The spread of each compared figure over the rounds that have it."""
    found: dict[str, Spread] = {}
    for name in ("rate", *PERCENTILES):
        values = [figures_of(one)[name] for one in rounds if name in figures_of(one)]
        if (over := spread(values)) is not None:
            found[name] = over
    return found


def ratios(ours: Sequence[LoadResult], theirs: Sequence[LoadResult]) -> dict[str, Spread]:
    """Ours / theirs for each compared figure, round by round: neighbours in time share the
    machine's speed of that time. A round in which one of them did nothing says nothing.
    """
    found: dict[str, Spread] = {}
    for name in ("rate", *PERCENTILES):
        values = [
            a[name] / b[name]
            for a, b in zip(map(figures_of, ours), map(figures_of, theirs), strict=True)
            if a.get(name) and b.get(name)
        ]
        if (over := spread(values)) is not None:
            found[name] = over
    return found


def shaped(values: dict[str, Spread]) -> dict[str, Any]:
    """For programs."""
    return {name: value.json() for name, value in values.items()}
