"""The release before this one reads what this one writes, and writes what this one reads."""

import json

import pytest

from actors.messages import Accepted
from broker.codec import Undecodable
from tests.broker import wire_record
from tests.broker.samples import OF_MEMBERSHIP, OF_PRINCIPALS, SAMPLES

ADVICE = (
    "This version writes or declares something else than the release that recorded it, under the "
    "same wire version, so nodes of both can't run in one cluster. Take the change back, or give "
    "it a version (docs/decisions/0024-versions.md, 'When the wire has to change'). Record it "
    "anew only for what was added before a release: no line that is there may change."
)


def recorded() -> list[str]:
    return wire_record.RECORD.read_text(encoding="utf-8").splitlines()


def messages() -> list[str]:
    return [line for line in recorded() if "lane" in json.loads(line)]


def test_what_is_written_is_what_was_written() -> None:
    for now, line in zip(wire_record.record(), recorded(), strict=True):
        assert now == line, ADVICE


@pytest.mark.parametrize("line", messages(), ids=lambda line: json.loads(line)["type"])
def test_what_was_written_is_read_whole(line: str) -> None:
    """Given a message of the record, then nothing in it is lost between reading and writing."""
    assert wire_record.repeated(line) == line, ADVICE


def test_the_record_has_every_message() -> None:
    assert len(messages()) == len(SAMPLES) + len(OF_PRINCIPALS) + len(OF_MEMBERSHIP) + 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"later": 1}, "later: Extra inputs are not permitted"),
        ({"type": "paxos.later"}, "does not match any of the expected tags"),
        ({"slot": None}, "slot: Input should be a valid integer"),
    ],
)
def test_what_this_release_does_not_know_is_refused_and_never_passed_over(
    change: dict[str, object], says: str
) -> None:
    """A node that ignored a field or a kind would compute something else than the one that meant
    it; see decision 24 for how a later release comes to send it.
    """
    (accepted,) = [sample for sample in SAMPLES if isinstance(sample, Accepted)]
    (line,) = [line for line in messages() if json.loads(line)["type"] == accepted.type]
    read = json.loads(line)
    (message,) = json.loads(read["body"])
    read["body"] = json.dumps([message | change])
    with pytest.raises(Undecodable, match=says):
        wire_record.repeated(json.dumps(read))
