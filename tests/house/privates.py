"""The rule that a private name belongs to one class, or to one module."""

import ast
from collections.abc import Iterator

NAMEDTUPLE = frozenset({"_replace", "_asdict", "_fields", "_make"})
"""Public, whatever their names: the underscore keeps them apart from the fields."""


def foreign_privates(source: str) -> Iterator[str]:
    """Each access to a private attribute of another object, and each import of a private name."""
    yield from _in(ast.parse(source), ())


def _in(node: ast.AST, classes: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and _is_private(node.attr):
        if not _is_own(node.value, classes):
            yield f"{node.lineno}: {ast.unparse(node)}"
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if _is_private(alias.name):
                yield f"{node.lineno}: from {node.module} import {alias.name}"
    inner = (*classes, node.name) if isinstance(node, ast.ClassDef) else classes
    for child in ast.iter_child_nodes(node):
        yield from _in(child, inner)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in NAMEDTUPLE


def _is_own(owner: ast.expr, classes: tuple[str, ...]) -> bool:
    if isinstance(owner, ast.Call):
        return isinstance(owner.func, ast.Name) and owner.func.id == "super"
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls", *classes)
