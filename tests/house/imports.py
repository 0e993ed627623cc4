"""The rule for what actors may import and call, checked on the source itself.

import-linter checks which module imports which; this checks the rest: that actors import nothing
from outside but pydantic, and reach no input, output or clock by a builtin either.
"""

import ast
import sys
from collections.abc import Iterator

ALLOWED_PACKAGES = frozenset({"actors", "pydantic", "pydantic_core", "annotated_types"})

FORBIDDEN_MODULES = frozenset(
    {
        "asyncio",
        "concurrent",
        "contextvars",
        "ctypes",
        "datetime",
        "fcntl",
        "glob",
        "http",
        "importlib",
        "io",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "platform",
        "queue",
        "random",
        "resource",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "syslog",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
        "warnings",
        "zoneinfo",
        "_thread",
    }
)

FORBIDDEN_BUILTINS = frozenset({"open", "print", "input", "eval", "exec", "__import__", "hash"})


def violations(source: str, name: str) -> list[str]:
    """Return what a module of actors/ does that it may not, a line each."""
    tree = ast.parse(source, filename=name)
    return [f"{name}:{line}: {what}" for line, what in sorted(_findings(tree))]


def _findings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield from _module(node.lineno, alias.name)
            case ast.ImportFrom(level=0, module=str(module)):
                yield from _module(node.lineno, module)
            case ast.ImportFrom():
                yield node.lineno, "relative import"
            case ast.Call(func=ast.Name(id=called)) if called in FORBIDDEN_BUILTINS:
                yield node.lineno, f"calls {called}()"
            case ast.AsyncFunctionDef(name=function):
                yield node.lineno, f"{function} is a coroutine"
            case _:
                pass


def _module(line: int, module: str) -> Iterator[tuple[int, str]]:
    package = module.partition(".")[0]
    if package in FORBIDDEN_MODULES:
        yield line, f"imports {module}"
    elif package not in ALLOWED_PACKAGES and package not in sys.stdlib_module_names:
        yield line, f"imports {module}, which is from outside"


def modules_imported(source: str) -> set[str]:
    """All modules that the source imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or ".")
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def imports_of(source: str, names: frozenset[str]) -> set[str]:
    """Which of the modules `names` the source imports, also where only types are checked."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found & names


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other, directly or by way of others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for name in imports[todo.pop()] - seen:
                seen.add(name)
                todo.append(name)
        return seen

    reach = {name: reached(name) for name in imports}
    found: list[set[str]] = []
    for name in sorted(imports):
        circle = {other for other in reach[name] if name in reach[other]}
        if len(circle) > 1 and circle not in found:
            found.append(circle)
    return found
