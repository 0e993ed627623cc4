"""Histories written by hand: pairs of what may happen and what may not."""

import pytest

from chaos.checker.history import operations_of
from chaos.checker.linearizability import check
from tests.checker.histories import events_of, judge

OK = "linearizable"
BAD = "not linearizable"

STORIES: dict[str, tuple[str, list[str]]] = {
    "nothing happened": (OK, []),
    "what was never written is absent": (OK, ["1 invoke read /a", "1 ok null"]),
    "a value out of nowhere": (BAD, ["1 invoke read /a", "1 ok 7"]),
    "read your write": (OK, ["1 invoke write /a 1", "1 ok", "1 invoke read /a", "1 ok 1"]),
    "a lost write": (BAD, ["1 invoke write /a 1", "1 ok", "1 invoke read /a", "1 ok null"]),
    "a stale read": (
        BAD,
        [
            "1 invoke write /a 1",
            "1 ok",
            "1 invoke write /a 2",
            "1 ok",
            "2 invoke read /a",
            "2 ok 1",
        ],
    ),
    "a read while the write goes on may see either": (
        OK,
        [
            "1 invoke write /a 1",
            "2 invoke read /a",
            "2 ok null",
            "2 invoke read /a",
            "2 ok 1",
            "1 ok",
        ],
    ),
    "but time does not run back": (
        BAD,
        [
            "1 invoke write /a 1",
            "2 invoke read /a",
            "2 ok 1",
            "2 invoke read /a",
            "2 ok null",
            "1 ok",
        ],
    ),
    "two readers agree on the order of two writes": (
        OK,
        [
            *("1 invoke write /a 1", "2 invoke write /a 2", "3 invoke read /a", "3 ok 2"),
            *("4 invoke read /a", "4 ok 1", "1 ok", "2 ok"),
        ],
    ),
    "two readers disagree": (
        BAD,
        [
            *("1 invoke write /a 1", "2 invoke write /a 2"),
            *("3 invoke read /a", "3 ok 2", "3 invoke read /a", "3 ok 1"),
            *("4 invoke read /a", "4 ok 2", "1 ok", "2 ok"),
        ],
    ),
    "an update that rests on what was read": (
        OK,
        [
            *("1 invoke write /a 1", "1 ok", "2 invoke cas /a [1,2]", "3 invoke cas /a [1,3]"),
            *("2 ok", "3 fail", "1 invoke read /a", "1 ok 2"),
        ],
    ),
    "a lost update": (
        BAD,
        [
            *("1 invoke write /a 1", "1 ok", "2 invoke cas /a [1,2]", "3 invoke cas /a [1,3]"),
            *("2 ok", "3 ok"),
        ],
    ),
    "a cas refused though its value was there": (
        BAD,
        ["1 invoke write /a 1", "1 ok", "1 invoke cas /a [1,2]", "1 fail"],
    ),
    "a cas that failed for another reason observes nothing": (
        OK,
        ["1 invoke write /a 1", "1 ok", "1 invoke cas /a [1,2]", "1 fail aborted"],
    ),
    "a cas refused while its value was being written": (
        OK,
        ["1 invoke write /a 1", "2 invoke cas /a [1,2]", "2 fail", "1 ok"],
    ),
    "a cas that creates": (OK, ["1 invoke cas /a [null,1]", "1 ok", "1 invoke read /a", "1 ok 1"]),
    "a cas that creates twice": (
        BAD,
        ["1 invoke cas /a [null,1]", "2 invoke cas /a [null,2]", "1 ok", "2 ok"],
    ),
    "created, deleted, created": (
        OK,
        [
            *("1 invoke cas /a [null,1]", "2 invoke cas /a [null,2]", "3 invoke delete /a"),
            *("1 ok", "2 ok", "3 ok"),
        ],
    ),
    "deleted and gone": (
        OK,
        [
            "1 invoke write /a 1",
            "1 ok",
            "1 invoke delete /a",
            "1 ok",
            "1 invoke read /a",
            "1 ok null",
        ],
    ),
    "deleted but there": (
        BAD,
        ["1 invoke write /a 1", "1 ok", "1 invoke delete /a", "1 ok", "1 invoke read /a", "1 ok 1"],
    ),
    "a delete of nothing": (OK, ["1 invoke delete /a", "1 ok", "1 invoke read /a", "1 ok null"]),
    "a move is one moment": (
        OK,
        [
            *(
                "1 invoke write /a 1",
                "1 ok",
                '1 invoke txn [["cas","/a",[1,null]],["write","/b",1]]',
            ),
            *("2 invoke read /a", "2 ok null", "2 invoke read /b", "2 ok 1", "1 ok"),
        ],
    ),
    "a move seen half done": (
        BAD,
        [
            *(
                "1 invoke write /a 1",
                "1 ok",
                '1 invoke txn [["cas","/a",[1,null]],["write","/b",1]]',
            ),
            *("2 invoke read /a", "2 ok null", "2 invoke read /b", "2 ok null", "1 ok"),
        ],
    ),
    "a txn reads its own writes": (
        OK,
        [
            '1 invoke txn [["read","/a",null],["write","/a",1],["read","/a",null]]',
            '1 ok [["read","/a",null],["write","/a",1],["read","/a",1]]',
        ],
    ),
    "a txn does not read its own write": (
        BAD,
        [
            '1 invoke txn [["write","/a",1],["read","/a",null]]',
            '1 ok [["write","/a",1],["read","/a",null]]',
        ],
    ),
    "a snapshot that never was": (
        BAD,
        [
            *('1 invoke txn [["write","/a",1],["write","/b",1]]', "1 ok"),
            *('1 invoke txn [["write","/a",2],["write","/b",2]]',),
            '2 invoke txn [["read","/a",null],["read","/b",null]]',
            *('2 ok [["read","/a",2],["read","/b",1]]', "1 ok"),
        ],
    ),
    "paths tied by a chain of transactions": (
        BAD,
        [
            '1 invoke txn [["write","/a",1],["write","/b",1]]',
            *("1 ok", '1 invoke txn [["write","/b",2],["write","/c",2]]', "1 ok"),
            *('2 invoke txn [["read","/a",null],["read","/c",null]]',),
            '2 ok [["read","/a",null],["read","/c",2]]',
        ],
    ),
    "a failed write did not happen": (
        OK,
        ["1 invoke write /a 1", "1 fail aborted", "1 invoke read /a", "1 ok null"],
    ),
    "a failed write happened": (
        BAD,
        ["1 invoke write /a 1", "1 fail aborted", "1 invoke read /a", "1 ok 1"],
    ),
    "an unknown write happened": (
        OK,
        [
            "1 invoke write /a 1",
            "1 info",
            "2 invoke read /a",
            "2 ok null",
            "2 invoke read /a",
            "2 ok 1",
        ],
    ),
    "an unknown write did not happen": (
        OK,
        ["1 invoke write /a 1", "2 invoke read /a", "2 ok null", "2 invoke read /a", "2 ok null"],
    ),
    "an unknown write happened and did not": (
        BAD,
        [
            "1 invoke write /a 1",
            "1 info",
            "2 invoke read /a",
            "2 ok 1",
            "2 invoke read /a",
            "2 ok null",
        ],
    ),
    "an unknown write happened before it was asked for": (
        BAD,
        ["2 invoke read /a", "2 ok 1", "1 invoke write /a 1", "1 info"],
    ),
    "an unknown write happens once": (
        BAD,
        [
            *("1 invoke write /a 1", "1 info", "2 invoke read /a", "2 ok 1", "2 invoke write /a 2"),
            *("2 ok", "2 invoke read /a", "2 ok 1"),
        ],
    ),
    "an unknown cas after an unknown write": (
        OK,
        ["1 invoke write /a 1", "1 info", "2 invoke cas /a [1,2]", "3 invoke read /a", "3 ok 2"],
    ),
    "an unknown cas on what never was": (
        BAD,
        ["2 invoke cas /a [1,2]", "2 info", "3 invoke read /a", "3 ok 2"],
    ),
    "an unknown write that only a refused cas observed": (
        OK,
        [
            *("1 invoke write /a 1", "1 ok", "2 invoke write /a 9", "2 info"),
            *("1 invoke cas /a [1,2]", "1 fail"),
        ],
    ),
    "an unknown delete between two creations": (
        OK,
        [
            *("1 invoke cas /a [null,1]", "1 ok", "2 invoke delete /a", "2 info"),
            *("1 invoke cas /a [null,2]", "1 ok"),
        ],
    ),
    "an unknown delete that must be saved up": (
        OK,
        [
            *("1 invoke delete /a", "2 invoke read /a", "3 invoke read /a"),
            *("4 invoke cas /a [null,1]", "5 invoke cas /a [null,2]", "2 ok 2", "3 ok 1"),
        ],
    ),
    "two unknown creations of one value are needed, in this order": (
        OK,
        [
            *("1 invoke read /a", "2 invoke read /a", "3 invoke write /a 2"),
            *("4 invoke cas /a [null,2]", "5 invoke cas /a [2,1]", "1 ok null"),
            *("6 invoke cas /a [2,1]", "5 ok", "6 ok", "2 ok null"),
        ],
    ),
    "one unknown delete is not two": (
        BAD,
        [
            *("1 invoke cas /a [null,1]", "1 ok", "2 invoke delete /a", "2 info"),
            *("1 invoke cas /a [null,2]", "1 ok", "1 invoke cas /a [null,3]", "1 ok"),
        ],
    ),
    "an unknown move is whole or not at all": (
        BAD,
        [
            *(
                "1 invoke write /a 1",
                "1 ok",
                '2 invoke txn [["cas","/a",[1,null]],["write","/b",1]]',
            ),
            *("2 info", "1 invoke read /b", "1 ok 1", "1 invoke read /a", "1 ok 1"),
        ],
    ),
    "an unknown move is whole": (
        OK,
        [
            *(
                "1 invoke write /a 1",
                "1 ok",
                '2 invoke txn [["cas","/a",[1,null]],["write","/b",1]]',
            ),
            *("2 info", "1 invoke read /b", "1 ok 1", "1 invoke read /a", "1 ok null"),
        ],
    ),
    "an unknown write that needed what is gone by now": (
        OK,
        [
            *("1 invoke write /b 1", "1 ok", '2 invoke txn [["cas","/b",[1,1]],["write","/a",9]]'),
            *("2 info", "1 invoke write /b 2", "1 ok", "1 invoke read /a", "1 ok 9"),
        ],
    ),
    "an unknown write that needs what was never there in its time": (
        BAD,
        [
            *("1 invoke write /b 1", "1 ok", "1 invoke write /b 2", "1 ok"),
            *('2 invoke txn [["cas","/b",[1,1]],["write","/a",9]]', "2 info"),
            *("1 invoke read /a", "1 ok 9"),
        ],
    ),
    "true, 1 and 1.0 are three values": (
        BAD,
        ["1 invoke write /a true", "1 ok", "1 invoke read /a", "1 ok 1"],
    ),
    "values may be anything": (
        OK,
        ['1 invoke write /a {"x":[1],"y":2}', "1 ok", "1 invoke read /a", '1 ok {"y":2,"x":[1]}'],
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_story(story: str) -> None:
    verdict, lines = STORIES[story]

    assert judge(*lines).verdict == verdict


def test_paths_are_checked_apart_unless_a_transaction_ties_them() -> None:
    apart = judge("1 invoke write /a 1", "1 ok", "1 invoke write /b 1", "1 ok")
    tied = judge(
        *("1 invoke write /a 1", "1 ok", "1 invoke write /b 1", "1 ok"),
        *('1 invoke txn [["read","/a",null],["read","/b",null]]',),
        '1 ok [["read","/a",1],["read","/b",1]]',
    )

    assert [one.component.paths for one in apart.components] == [("/a",), ("/b",)]
    assert [one.component.paths for one in tied.components] == [("/a", "/b")]


def test_unknown_operations_that_no_other_observed_are_dropped() -> None:
    result = judge(
        *("1 invoke write /a 1", "1 info", "2 invoke read /a", "2 info"),
        *("3 invoke cas /a [1,2]", "3 info", "4 invoke write /a 3", "4 info"),
        *("5 invoke read /a", "5 ok 3"),
    )

    assert (result.verdict, result.operations, result.unknown, result.dropped) == (OK, 5, 4, 3)


def test_no_time_no_verdict() -> None:
    lines = ["1 invoke write /a 1", "1 ok", "2 invoke read /a", "2 ok 1"]

    assert check(operations_of(events_of(*lines)), time_limit_s=-1).verdict == "undecided"
