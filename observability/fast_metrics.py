"""Counters and histograms for events that are counted thousands of times a second.

prometheus_client exposes them like its own, and they are used in the same way. Its own take a lock
for each change, two for an observation, because any thread may count; these are for the one thread
of a node's event loop, and cost a fifth.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

Child = TypeVar("Child")


class FastCounter:
    """One counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Count `amount` more."""
        self.value += amount


class FastHistogram:
    """One histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """The count of each bucket: up to its bound, and above the one before; the last is +Inf."""
        self.total = 0.0

    def observe(self, amount: float) -> None:
        """Count one value."""
        self.total += amount
        self.counts[bisect_left(self.bounds, amount)] += 1


class _Family(ABC, Generic[Child]):
    """A name with a child for each combination of labels."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        registry: CollectorRegistry,
        make: Callable[[], Child],
    ) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._make = make
        self._children: dict[tuple[str, ...], Child] = {}
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Child:
        """The child for these values, made on first use."""
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {self._labels}, not {values}")
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._make()
        return child

    def describe(self) -> Iterable[Metric]:
        """The family for the registry's check of names."""
        yield self._empty()

    @abstractmethod
    def collect(self) -> Iterable[Metric]:
        """The family with its current values."""

    @abstractmethod
    def _empty(self) -> Metric:
        """The family without children."""


class FastCounterFamily(_Family[FastCounter]):
    """A family of counters."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...] = (), *, registry: CollectorRegistry
    ) -> None:
        super().__init__(name, text, labels, registry, FastCounter)

    def collect(self) -> Iterable[Metric]:
        """See `_Family`."""
        family = self._empty()
        for values, child in self._children.items():
            family.add_metric(values, child.value)
        yield family

    def _empty(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._text, labels=self._labels)


class FastHistogramFamily(_Family[FastHistogram]):
    """A family of histograms with the same upper `bounds`, in order."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...] = (),
        *,
        bounds: tuple[float, ...],
        registry: CollectorRegistry,
    ) -> None:
        all_bounds = (*bounds, float("inf"))
        self._names = [
            floatToGoString(bound)  # type: ignore[no-untyped-call]
            for bound in all_bounds
        ]
        super().__init__(name, text, labels, registry, lambda: FastHistogram(bounds))

    def collect(self) -> Iterable[Metric]:
        """See `_Family`."""
        family = self._empty()
        for values, child in self._children.items():
            buckets = list(zip(self._names, accumulate(child.counts), strict=True))
            family.add_metric(values, buckets, child.total)
        yield family

    def _empty(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._text, labels=self._labels)
