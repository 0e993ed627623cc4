"""Synod's own counters and histograms look the same as those of prometheus_client."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from observability.fast_metrics import FastCounterFamily, FastHistogramFamily

BOUNDS = (0.0005, 0.1, 1, 2.5)
LABELS = ("node", "type")
values = st.tuples(st.sampled_from(("a", "b")), st.sampled_from(("x", 'y"\\')))
amounts = st.one_of(st.sampled_from((0.0, *BOUNDS, 7.0)), st.floats(0, 5))


def _without_times(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


@given(st.lists(st.tuples(values, st.integers(0, 3))), st.lists(st.tuples(values, amounts)))
def test_they_are_exposed_as_prometheus_clients_own(
    counted: list[tuple[tuple[str, str], int]], observed: list[tuple[tuple[str, str], float]]
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tallies = FastCounterFamily("c", "Counted.", LABELS, registry=ours)
    counter = Counter("c", "Counted.", LABELS, registry=theirs)
    distributions = FastHistogramFamily("h", "Observed.", LABELS, bounds=BOUNDS, registry=ours)
    histogram = Histogram("h", "Observed.", LABELS, buckets=BOUNDS, registry=theirs)
    for labels, amount in counted:
        tallies.labels(*labels).inc(amount)
        counter.labels(*labels).inc(amount)
    for labels, seconds in observed:
        distributions.labels(*labels).observe(seconds)
        histogram.labels(*labels).observe(seconds)

    assert _without_times(ours) == _without_times(theirs)


def test_without_labels_there_is_one_from_the_start() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    FastCounterFamily("c", "Counted.", registry=ours).labels().inc(2)
    Counter("c", "Counted.", registry=theirs).inc(2)
    FastHistogramFamily("h", "Observed.", bounds=BOUNDS, registry=ours)
    Histogram("h", "Observed.", buckets=BOUNDS, registry=theirs)
    assert _without_times(ours) == _without_times(theirs)


def test_a_name_is_given_once_and_labels_must_fit() -> None:
    registry = CollectorRegistry()
    tallies = FastCounterFamily("c", "Counted.", LABELS, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counter("c", "Counted.", registry=registry)
    with pytest.raises(ValueError, match="labels"):
        tallies.labels("a")
