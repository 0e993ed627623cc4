"""Hostile input: valid messages and requests with something wrong in them."""

import json
from typing import Any

from hypothesis import strategies as st

from actors.numbers import COUNT_MAX
from tests.broker.samples import SAMPLES

numbers = st.sampled_from([-1, 0, 1, 2, 63, 10_000, 2**31, COUNT_MAX - 1, COUNT_MAX, COUNT_MAX + 1])
texts = st.sampled_from(
    [
        *("", " ", "/", "..", "a/../b", "a/b", "a", "d", "*", "0" * 64, "x" * 300, "é" * 40),
        *(
            "\x00",
            "\u2028",
            "a\r\nb",
            "\ud800",
            "\u202e",
            'W/"1-0"',
            '"*"',
            '"1-0", "2-0"',
            "1e400",
        ),
    ]
) | st.sampled_from(["proposer-1", "acceptor-9", "store-2", "learner-1", "gateway-1", "nobody-1"])
leaves: st.SearchStrategy[Any] = (
    numbers | texts | st.none() | st.booleans() | st.just([]) | st.just({})
)


def like(value: Any) -> st.SearchStrategy[Any]:
    """Mostly another value of the same type, so that the message is often valid."""
    match value:
        case bool():
            return st.booleans()
        case int():
            return numbers | numbers | numbers | leaves
        case str():
            return texts | texts | texts | leaves
    return leaves


def places(node: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each leaf of a JSON document, as keys and indices."""
    if isinstance(node, dict):
        return [place for key, value in node.items() for place in places(value, (*above, key))]
    if isinstance(node, list) and node:
        return [place for i, value in enumerate(node) for place in places(value, (*above, i))]
    return [above]


@st.composite
def garbled(draw: st.DrawFn, document: Any) -> Any:
    """The document with one or two leaves, or what holds them, replaced, removed or repeated."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 2))):
        known = places(document)
        place = known[draw(st.integers(0, len(known) - 1))] if known else ()
        if not place:
            break
        if draw(st.integers(0, 9)) == 0:
            place = place[: draw(st.integers(1, len(place)))]
        *above, last = place
        holder = document
        for key in above:
            holder = holder[key]
        match draw(st.sampled_from(["replace"] * 6 + ["remove", "repeat"])):
            case "replace":
                holder[last] = draw(like(holder[last]))
            case "remove":
                del holder[last]
            case _ if isinstance(holder, list):
                holder *= draw(st.sampled_from([2, 100]))
    return document


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """The JSON of an almost valid message."""
    sample: Any = draw(st.sampled_from(SAMPLES))
    return draw(garbled(json.loads(sample.to_json()) | {"type": sample.type}))
