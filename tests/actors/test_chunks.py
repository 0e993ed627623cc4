"""A chunk is deleted once nothing uses it and its time has passed: there is no other rule.

The model needs three lines for each step; the real class has a heap, manifests and counts.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.store.chunks import (
    READING_GRACE_MS,
    RELEASED_GRACE_MS,
    AnyContent,
    ChunkManifest,
    Chunks,
)
from actors.values import Chunked, Indirect

NAMES = tuple(hashlib.sha256(b"%d" % number).hexdigest() for number in range(4))
LIST = hashlib.sha256(b"list").hexdigest()
LISTED = NAMES[:2]
CONTENTS: tuple[AnyContent, ...] = (
    Chunked(size=1, sha256=NAMES[0], chunks=NAMES[:1]),
    Chunked(size=3, sha256=NAMES[1], chunks=NAMES[1:]),
    Indirect(size=2, sha256="0" * 64, manifest=LIST),
)


def named_by(content: AnyContent) -> tuple[str, ...]:
    if isinstance(content, Indirect):
        return (LIST, *LISTED)
    return content.chunks  # type: ignore[union-attr]


def listed_in(name: str) -> tuple[str, ...]:
    return (name, *LISTED) if name == LIST else (name,)


class Model:
    """The held, used and kept chunks, as a model; each step is also done to the real class."""

    def __init__(self) -> None:
        self.real = Chunks()
        self.now = 0
        self.held: set[str] = set()
        self.users: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.in_use: list[AnyContent] = []

    def _raise(self, names: Iterable[str], for_ms: int) -> None:
        for name in names:
            self.kept[name] = max(self.kept[name], self.now + for_ms)

    def add(self, name: str, for_ms: int) -> None:
        self.real.add(name, self.now + for_ms)
        self.held.add(name)
        self._raise(listed_in(name), for_ms)
        if name == LIST:
            self.real.add_manifest(LIST, ChunkManifest(names=LISTED))

    def keep(self, name: str, for_ms: int) -> None:
        self.real.keep(name, self.now + for_ms)
        if name in self.held:
            self._raise(listed_in(name), for_ms)

    def use(self, content: AnyContent) -> None:
        if not set(named_by(content)) <= self.held:
            return  # A store does not vote for it.
        self.real.use(content)
        self.users.update(named_by(content))
        self.in_use.append(content)

    def release(self, which: int) -> None:
        if self.in_use:
            content = self.in_use.pop(which % len(self.in_use))
            names = named_by(content)
            self.users.subtract(names)
            unused = [name for name in names if not self.users[name]]
            assert self.real.release(content, self.now) == unused
            for name in unused:
                grace_ms = RELEASED_GRACE_MS if len(names) == 1 else READING_GRACE_MS
                self._raise(listed_in(name), grace_ms)

    def install(self, _: int) -> None:
        """Another state, which names no chunks."""
        self.real.forget_users(self.now)
        for name in (*NAMES, LIST):
            if self.users[name]:
                self._raise(listed_in(name), READING_GRACE_MS)
        self.users.clear()
        self.in_use.clear()

    def sweep(self, after_ms: int) -> None:
        self.now += after_ms
        gone = {n for n in self.held if not self.users[n] and self.kept[n] <= self.now}
        expired = self.real.take_expired(self.now, 100)
        assert len(expired) == len(set(expired))
        assert set(expired) == gone
        for name in expired:
            self.real.remove(name)
        self.held -= gone
        assert self.real.held == self.held


_TIMES = st.sampled_from((0, 1_000, RELEASED_GRACE_MS, READING_GRACE_MS, 3_600_000))
_STEPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from((*NAMES, LIST)), _TIMES),
    st.tuples(st.just("keep"), st.sampled_from((*NAMES, LIST)), _TIMES),
    st.tuples(st.just("use"), st.sampled_from(CONTENTS)),
    st.tuples(st.just("release"), st.integers(0, 5)),
    st.tuples(st.just("install"), st.just(0)),
    st.tuples(st.just("sweep"), _TIMES),
)


@given(st.lists(_STEPS, max_size=40))
@example([("add", NAMES[0], 0), ("keep", NAMES[0], 60_000), ("keep", NAMES[0], 0), ("sweep", 0)])
@example([("add", NAMES[0], 0), ("use", CONTENTS[0]), ("sweep", 0), ("install", 0), ("sweep", 0)])
@settings(max_examples=400, deadline=None)
def test_a_sweep_takes_only_unused_chunks_whose_time_has_passed(
    steps: list[tuple[object, ...]],
) -> None:
    model = Model()
    for step, *arguments in steps:
        getattr(model, str(step))(*arguments)

    model.sweep(2 * 3_600_000)

    assert model.held == {name for name in model.held if model.users[name]}
    assert not model.real._due
    assert not model.real._kept_until


def test_names_of_chunks_that_are_not_held_take_no_memory() -> None:
    chunks = Chunks()

    for name in NAMES:
        chunks.keep(name, 1_000)

    assert not chunks._kept_until


def test_manifests_that_list_each_other_end() -> None:
    """Given thousands of manifests in a ring, then one step keeps them all, and ends."""
    chunks = Chunks()
    names = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(5_000)]
    for name, listed in zip(names, (*names[1:], names[0]), strict=True):
        chunks.add(name, 1_000)
        chunks.add_manifest(name, ChunkManifest(names=(listed, listed)))

    chunks.keep(names[0], 2_000)

    assert chunks.take_expired(1_999, 10_000) == []
    assert sorted(chunks.take_expired(2_000, 10_000)) == sorted(names)


def test_a_reader_on_a_full_disk_shortens_no_uploads_time() -> None:
    """Given an upload that keeps a chunk for long, when a reader asks for it for less, then it is
    kept for both.
    """
    chunks = Chunks()
    chunks.add(NAMES[0], 60)
    chunks.keep(NAMES[0], 1_000, until_if_full=100)
    chunks.keep(NAMES[0], 500)
    assert chunks.take_unused_if_full(499, 10) == []
    assert chunks.take_unused_if_full(500, 10) == [NAMES[0]]
    assert (chunks.take_expired(60, 10), chunks.take_expired(999, 10)) == ([], [])
    assert chunks.take_expired(1_000, 10) == [NAMES[0]]
