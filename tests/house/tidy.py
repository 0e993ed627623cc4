"""The rules of style: each takes a file's text and returns what it finds, a line each."""

import ast
import re
from collections.abc import Callable, Iterator

from actors.values import Constants

LINES_MAX = 800
COLUMNS_MAX = 100

# Put together from parts, so that this file does not hold what it forbids.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("deb", "debian", "org"),
    )
)

_MACHINE_PATH = re.compile(r"(?<![\w.\-}])/(?:" + "home|root|work|Users" + r")/[\w.]")
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][\w.\-]*(?:\[[\w,\-]+\])?==[\w.+!]+( ; .*)? \\$")
_HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")

_REPLICATED_SETTING = re.compile(
    r"\boptions\.(?:proposers|acceptors|learners|stores|members|"
    + "|".join(Constants.model_fields)
    + r")\b"
)

Rule = Callable[[str], Iterator[str]]


def whitespace(text: str) -> Iterator[str]:
    """No tabs, no trailing blanks, one newline at the end, no carriage returns."""
    for number, line in enumerate(text.split("\n"), start=1):
        if "\t" in line:
            yield f"{number}: tab"
        if line != line.rstrip():
            yield f"{number}: trailing whitespace"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield "does not end with exactly one newline"


def no_machine_paths(text: str) -> Iterator[str]:
    """No path that exists on one person's machine only."""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _MACHINE_PATH.search(line):
            yield f"{number}: machine path {found.group()}…"


def no_registry_hosts(text: str) -> Iterator[str]:
    """No package registry's host: the user's configuration decides where packages come from."""
    for number, line in enumerate(text.splitlines(), start=1):
        for host in REGISTRY_HOSTS:
            if host in line:
                yield f"{number}: registry host {host}"


def short_enough(text: str) -> Iterator[str]:
    """No module is longer than `LINES_MAX`; a longer one wants to be two."""
    if (lines := text.count("\n")) > LINES_MAX:
        yield f"{lines} lines, more than {LINES_MAX}"


def narrow_enough(text: str) -> Iterator[str]:
    """Two windows of lines fit side by side; formatters don't wrap texts and comments."""
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > COLUMNS_MAX:
            yield f"{number}: {len(line)} columns, more than {COLUMNS_MAX}"


def has_docstring(text: str) -> Iterator[str]:
    """A public module has a docstring with its purpose."""
    if not ast.get_docstring(ast.parse(text)):
        yield "no module docstring"


def computes_from_the_genesis(text: str) -> Iterator[str]:
    """No quorum, lease or replica's state is computed from a node's own settings."""
    for number, line in enumerate(text.split("\n"), start=1):
        yield from (f"{number}: {found[0]}" for found in _REPLICATED_SETTING.finditer(line))


def locked(text: str) -> Iterator[str]:
    """Every entry of the lock is pinned and hashed, and no line names a source."""
    entry: str | None = None
    hashes = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if _HASH.match(line):
            hashes += 1
        elif _REQUIREMENT.match(line):
            if entry is not None and not hashes:
                yield f"{entry} has no hash"
            entry, hashes = line.partition(" ")[0], 0
        elif line.strip() and not line.lstrip().startswith("#"):
            yield f"{number}: neither a pinned requirement nor a hash: {line}"
        if "://" in line:
            yield f"{number}: an address"
    if entry is None:
        yield "locks nothing"
    elif not hashes:
        yield f"{entry} has no hash"
