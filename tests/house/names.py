"""The rule that the name of a public class means one thing in all packages."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

_TYPE = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")


def shared_names(files: Mapping[str, str]) -> dict[str, list[str]]:
    """The names of public top-level classes that a class or a type alias of another file has, too.

    Aliases may share a name among themselves: those of the commands' options are alike.
    """
    classes: set[str] = set()
    places: defaultdict[str, list[str]] = defaultdict(list)
    for file, text in sorted(files.items()):
        for name, is_class in _types(ast.parse(text)):
            places[name].append(file)
            if is_class:
                classes.add(name)
    return {name: files for name, files in places.items() if name in classes and len(files) > 1}


def _types(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, True
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and _TYPE.fullmatch(target.id):
                    yield target.id, False
