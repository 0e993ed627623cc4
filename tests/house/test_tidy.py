"""The style itself is tested, in TigerBeetle's spirit."""

import subprocess
from pathlib import Path

import pytest

from tests.house import tidy

ROOT = Path(__file__).parents[2]
PACKAGES = ("actors", "broker", "gateway", "observability", "chaos", "synod")
TABS_MEANT = {"Makefile"}
VENDORED = "/vendor/"
LOCKS = ("requirements.lock", "requirements.run.lock")


def house_files() -> list[Path]:
    """Return the files that are, or on the next commit would be, part of the project."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        names = [name for name in listing.stdout.decode().split("\0") if name]
        found = [ROOT / name for name in names]
    else:  # an unpacked archive
        found = [
            path
            for path in ROOT.rglob("*")
            if not any(
                part == "__pycache__" or (part.startswith(".") and part != ".ci")
                for part in path.relative_to(ROOT).parts
            )
        ]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def texts() -> dict[str, str]:
    """Return the text files by their name in the house; pictures and such are left out."""
    found: dict[str, str] = {}
    for path in house_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found[str(path.relative_to(ROOT))] = content.decode("utf-8")
    return found


def findings(rule: tidy.Rule, files: dict[str, str]) -> list[str]:
    """Apply one rule to many files."""
    return [f"{name}: {what}" for name, text in sorted(files.items()) for what in rule(text)]


def python_files() -> dict[str, str]:
    """Return the modules of all packages."""
    files = {name: text for name, text in texts().items() if name.endswith(".py")}
    return {name: text for name, text in files.items() if name.partition("/")[0] in PACKAGES}


def test_the_house_is_seen() -> None:
    assert {"Makefile", "pyproject.toml", "LICENSE", *LOCKS} <= texts().keys()
    assert {name.partition("/")[0] for name in python_files()} == set(PACKAGES)


def test_whitespace() -> None:
    files = {
        name: text
        for name, text in texts().items()
        if Path(name).name not in TABS_MEANT and VENDORED not in name
    }
    assert findings(tidy.whitespace, files) == []


def test_lines_are_narrow_enough() -> None:
    files = {
        name: text
        for name, text in texts().items()
        if Path(name).suffix in {".css", ".html", ".js", ".py"} and VENDORED not in name
    }
    assert {Path(name).suffix for name in files} == {".css", ".html", ".js", ".py"}
    assert findings(tidy.narrow_enough, files) == []


@pytest.mark.parametrize("rule", [tidy.no_machine_paths, tidy.no_registry_hosts])
def test_no_trace_of_one_machine(rule: tidy.Rule) -> None:
    assert findings(rule, texts()) == []


@pytest.mark.parametrize("rule", [tidy.short_enough, tidy.has_docstring])
def test_modules(rule: tidy.Rule) -> None:
    assert findings(rule, python_files()) == []


def test_actors_compute_from_the_genesis() -> None:
    """Only founding reads the settings, to mint a genesis and to compare with one."""
    files = {name: text for name, text in python_files().items() if name.startswith("actors/")}
    del files["actors/founding.py"]
    assert findings(tidy.computes_from_the_genesis, files) == []


def test_the_lock_is_hashed() -> None:
    assert findings(tidy.locked, {name: texts()[name] for name in LOCKS}) == []


@pytest.mark.parametrize(
    ("rule", "text", "found"),
    [
        (tidy.whitespace, "a\tb\n", ["1: tab"]),
        (tidy.whitespace, "a \nb\r\n", ["1: trailing whitespace", "2: trailing whitespace"]),
        (tidy.whitespace, "a", ["does not end with exactly one newline"]),
        (tidy.no_machine_paths, "cd /" + "home/ada\n", ["1: machine path /" + "home/a…"]),
        (tidy.no_machine_paths, "GET /v1/files/" + "home/ada\n", []),
        (
            tidy.no_registry_hosts,
            f"see {tidy.REGISTRY_HOSTS[0]}\n",
            [f"1: registry host {tidy.REGISTRY_HOSTS[0]}"],
        ),
        (tidy.short_enough, "\n" * 801, ["801 lines, more than 800"]),
        (tidy.narrow_enough, f"{'é' * 100}\n{'x' * 101}\n", ["2: 101 columns, more than 100"]),
        (tidy.has_docstring, "x = 1\n", ["no module docstring"]),
        (
            tidy.computes_from_the_genesis,
            "until = self.options.lease_ms\n",
            ["1: options.lease_ms"],
        ),
        (tidy.locked, "", ["locks nothing"]),
        (
            tidy.locked,
            "a==1 \\\nb==2 \\\n    --hash=sha256:" + "0" * 64 + "\n",
            ["a==1 has no hash"],
        ),
        (
            tidy.locked,
            "--index-url x\na==1 \\\n    --hash=sha256:" + "0" * 64 + "\n",
            ["1: neither a pinned requirement nor a hash: --index-url x"],
        ),
    ],
)
def test_each_rule_can_fail(rule: tidy.Rule, text: str, found: list[str]) -> None:
    assert list(rule(text)) == found
