"""No key and no password is in the repository; what looks like one has to be explained here."""

import math
import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]

_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----")
_NAMED = re.compile(
    r"(?i)(?:password|passwd|secret|token|api_?key|cookie)[\"']?\s*[:=]\s*"
    r"[\"']?(?P<value>[A-Za-z0-9+/_-]{16,})"
)
_IN_URL = re.compile(r"(?:amqps?|https?)://[\w.-]+:(?P<value>[^\s@/{}$:\"'`…<>*\\]{8,})@")
_BITS_MIN = 3.4
"""Bits of entropy for each character: random letters and digits have more, words have less."""


def suspicious(text: str) -> list[str]:
    """What looks like a key or a password."""
    found = [match[0] for match in _KEY.finditer(text)]
    for pattern in (_NAMED, _IN_URL):
        found += [
            match["value"] for match in pattern.finditer(text) if _looks_random(match["value"])
        ]
    return found


def _looks_random(value: str) -> bool:
    if not (re.search(r"\d", value) and re.search(r"[A-Za-z]", value)):
        return False
    if value in "0123456789abcdef":
        return False
    if re.fullmatch(r"[a-z]+(?:[-_][a-z]+)*[-_0-9]*(?:[-_][a-z]+)*", value):
        return False  # Words, as tests call theirs.
    counts = Counter(value)
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    return bits >= _BITS_MIN


def tracked() -> list[Path]:
    """The files of the repository, those that are new included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    paths = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_of_the_repository_holds_a_key_or_a_password() -> None:
    files = tracked()
    assert len(files) > 300
    wrong = {}
    for path in files:
        if path.suffix in (".png", ".whl", ".woff2", ".lock"):
            continue
        if found := suspicious(path.read_bytes().decode("utf-8", "replace")):
            wrong[str(path.relative_to(ROOT))] = found
    assert wrong == {}


def test_what_it_looks_for_is_found() -> None:
    random = "q7Xw2LmZ" + "9vKp4RtB"
    for text in (
        "-----BEGIN EC PRIVATE" + " KEY-----\nMHc",
        "-----BEGIN PRIVATE" + " KEY-----",
        f"SYNOD_TOKEN={random}",
        f"password: '{random}'",
        f'{{"cookie": "{random}"}}',
        f"amqps://synod:{random}@rabbit-1/",
    ):
        assert suspicious(text) != [], text
    for text in (
        "amqp://synod:secret@rabbit-1/",
        'token="a-token-of-the-tests-0123"',
        "PASSWORD=$1",
    ):
        assert suspicious(text) == [], text
