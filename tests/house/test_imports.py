"""Imports run one way, and actors stay free of I/O, clocks and randomness."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.imports import circles, imports_of, modules_imported, violations

ROOT = Path(__file__).parents[2]
PACKAGES = ("actors", "broker", "gateway", "observability", "chaos", "synod")
ACTORS = sorted((ROOT / "actors").rglob("*.py"))
CLIENT = sorted((ROOT / "synod").rglob("*.py"))


@pytest.mark.parametrize("path", ACTORS, ids=lambda path: path.stem)
def test_an_actor_is_pure(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8"), path.name) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            "import json\nfrom pydantic import BaseModel\nfrom actors.paxos.ballot import Ballot\n",
            [],
        ),
        ("import time", ["x.py:1: imports time"]),
        ("from os.path import join", ["x.py:1: imports os.path"]),
        ("def f():\n    import random", ["x.py:2: imports random"]),
        ("import json, asyncio.queues", ["x.py:1: imports asyncio.queues"]),
        ("import aio_pika", ["x.py:1: imports aio_pika, which is from outside"]),
        ("import broker.journal", ["x.py:1: imports broker.journal, which is from outside"]),
        ("from . import ballot", ["x.py:1: relative import"]),
        ("print(open('x'))", ["x.py:1: calls open()", "x.py:1: calls print()"]),
        ("async def f(): ...", ["x.py:1: f is a coroutine"]),
    ],
)
def test_the_check_of_actors_can_fail(source: str, found: list[str]) -> None:
    assert violations(source, "x.py") == found


@pytest.mark.parametrize("path", CLIENT, ids=lambda path: path.stem)
def test_the_client_library_imports_httpx_and_python_only(path: Path) -> None:
    """Given an installation without the server, then all of `synod` can be imported."""
    allowed = {"httpx", "synod", *sys.stdlib_module_names}
    imported = modules_imported(path.read_text(encoding="utf-8"))
    if path.stem == "__main__":
        imported.remove("gateway.cli.main")  # It starts the application.
    assert {name for name in imported if name.partition(".")[0] not in allowed} == set()


def test_imports_run_one_way() -> None:
    outcome = _lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "3 kept, 0 broken" in outcome.stdout


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("actors", "import broker"),
        ("actors", "import observability"),
        ("actors", "import time"),
        ("actors", "import asyncio"),
        ("broker", "import gateway"),
        ("gateway", "import chaos"),
        ("observability", "import broker"),
        ("actors", "import synod"),
        ("broker", "import synod"),
        ("observability", "import synod"),
        ("synod", "import pydantic"),
    ],
)
def test_the_check_of_direction_can_fail(tmp_path: Path, module: str, source: str) -> None:
    # Given a house like ours, with one import that runs back,
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "gateway/cli").mkdir()
    for name in ("gateway/cli/__init__.py", "gateway/cli/main.py"):
        (tmp_path / name).touch()
    (tmp_path / "synod/__main__.py").write_text("import gateway.cli.main\n")
    (tmp_path / module / "wrong.py").write_text(source + "\n")

    # when it is checked, then exactly one contract is broken, and the module is named.
    outcome = _lint_imports(tmp_path)
    assert outcome.returncode == 1
    assert "2 kept, 1 broken" in outcome.stdout
    assert f"{module}.wrong" in outcome.stdout


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_no_modules_import_each_other() -> None:
    """Given all imports, also those for types alone, then a module can be read without the modules
    that import it.
    """
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }
    names = frozenset(modules)
    imports = {
        name: imports_of(path.read_text(encoding="utf-8"), names) - {name}
        for name, path in modules.items()
    }
    assert len(modules) > 150
    assert circles(imports) == []


def test_the_check_of_circles_can_fail() -> None:
    names = frozenset("abcd")
    sources = {"a": "import b", "b": "from c import x", "c": "if T:\n    import a", "d": "import a"}
    assert circles({name: imports_of(text, names) for name, text in sources.items()}) == [
        {"a", "b", "c"}
    ]
