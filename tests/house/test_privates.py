"""No module uses a private of another object: a part offers what others need by a public name."""

import pytest

from tests.house.privates import foreign_privates
from tests.house.test_tidy import python_files


def test_no_module_uses_a_private_of_another() -> None:
    found = [
        f"{name}:{what}"
        for name, text in sorted(python_files().items())
        for what in foreign_privates(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class A:\n    def f(self): self._x = super()._f() + A._y", []),
        ("class A:\n    @classmethod\n    def f(cls): return cls._x", []),
        ("def f(row): return row._replace(a=1)._asdict()", []),
        ("import b\nb.__name__", []),
        ("from __future__ import annotations", []),
        ("class A:\n    def f(self, other): return other._x", ["2: other._x"]),
        ("class A: pass\nclass B:\n    def f(self): return A._x", ["3: A._x"]),
        ("class A:\n    def f(self): return self.b._x", ["2: self.b._x"]),
        ("made = A()\nmade._begin()", ["2: made._begin"]),
        ("def f():\n    from a.b import c, _d", ["2: from a.b import _d"]),
    ],
)
def test_the_check_of_privates_can_fail(source: str, found: list[str]) -> None:
    assert list(foreign_privates(source)) == found
