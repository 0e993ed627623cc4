"""One name, one thing: a reader who knows a class by its name meets no other of that name."""

import pytest

from tests.house.names import shared_names
from tests.house.test_tidy import python_files

ALLOWED = {
    # The client library can't import the server, and shows its users the same things.
    "Change": ["actors/store/changes.py", "synod/entries.py"],
    "Entry": ["actors/values.py", "synod/entries.py"],
}
"""Classes that are one thing, seen from two sides, and the files that define them."""


def test_a_class_shares_its_name_with_no_other() -> None:
    assert shared_names(python_files()) == ALLOWED


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("class A: pass", "class B: pass", {}),
        ("class _A: pass", "class _A: pass", {}),
        ("def f():\n    class A: pass", "class A: pass", {}),
        ("Json = dict", "Json = list", {}),
        ("MOST = 1", "class Most: pass", {}),
        ("class A: pass", "class A: pass", {"A": ["one.py", "other.py"]}),
        ("class Ab: pass", "Ab = dict[str, str]", {"Ab": ["one.py", "other.py"]}),
    ],
)
def test_the_check_of_names_can_fail(one: str, other: str, found: dict[str, list[str]]) -> None:
    assert shared_names({"one.py": one, "other.py": other}) == found
