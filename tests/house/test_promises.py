"""What the documents, the help and the settings name exists."""

import re
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import typer.main
from typer.core import TyperGroup

from actors.values import Constants
from chaos.mutants.catalogue import load
from gateway.cli.main import build_cli
from gateway.http.operations import OPERATIONS
from gateway.settings import Settings
from tests.house.test_tidy import ROOT, house_files, python_files, texts

LATER = {"replace"}
"""Commands that `docs/limits.md` names as missing."""

ROLES = {"proposers", "acceptors", "learners", "stores"}
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def documents() -> dict[str, str]:
    """All documents by their names."""
    return {name: text for name, text in texts().items() if name.endswith(".md")}


def code() -> Iterator[tuple[str, str]]:
    """The code in documents, line by line, and all that comments and messages quote as code."""
    for name, text in documents().items():
        for block in _FENCE.findall(text):
            for line in block.splitlines():
                yield name, line.partition(" #")[0]
        for quoted in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)):
            yield name, quoted
    for name, text in python_files().items():
        for quoted in re.findall(r"`([^`\n]+)`", text):
            yield name, quoted


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options of each command; of one that has commands of its own, theirs."""
    group = typer.main.get_command(build_cli())
    assert isinstance(group, TyperGroup)
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():
        own = [command, *(command.commands.values() if isinstance(command, TyperGroup) else ())]
        found[name] = {option for each in own for one in each.params for option in one.opts}
    return found


def test_each_command_and_option_that_is_named_exists(options: dict[str, set[str]]) -> None:
    seen = 0
    wrong = []
    for name, line in code():
        for command, rest in re.findall(r"(?<![\w./-])(?<!from )synod ([a-z]+)\b([^|;&]*)", line):
            seen += 1
            if command not in options:
                if command not in LATER:
                    wrong.append(f"{name}: synod {command}")
                continue
            used = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) - {"--help"}
            wrong += [
                f"{name}: synod {command} {option}" for option in sorted(used - options[command])
            ]
    assert wrong == []
    assert seen > 40


def test_each_target_of_make_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    known = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    used = {
        (name, target)
        for name, line in code()
        for target in re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", line)
    }
    assert {one for one in used if one[1] not in known} == set()
    assert len(used) > 20


def test_each_route_that_is_named_exists() -> None:
    def bare(path: str) -> str:
        return re.sub(r"\{\w+\}", "{}", path)

    known = {bare(path) for _, path in OPERATIONS}
    known |= {path.removesuffix("/{}") for path in known}
    used = {
        (name, path)
        for name, text in documents().items()
        for path in re.findall(r"(?<![\w.}])/v1/[\w/{}]*\w\}?", text)
    }
    assert {one for one in used if bare(one[1]) not in known} == set()
    assert len(used) > 20


def test_each_module_and_file_that_is_named_exists() -> None:
    files = {str(path.relative_to(ROOT)) for path in house_files()}
    wrong = []
    for name, line in code():
        wrong += [
            f"{name}: {module}"
            for module in re.findall(r"python -m ([\w.]+)", line)
            if find_spec(module) is None
        ]
        wrong += [
            f"{name}: {file}"
            for file in re.findall(
                r"(?<![\w/.-])(?:docs|chaos|tests|actors|broker|gateway)/[\w/-]+\.\w+", line
            )
            if file not in files
        ]
    assert wrong == []


def test_each_link_leads_somewhere() -> None:
    def headings(text: str) -> set[str]:
        found = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in found}

    wrong = []
    for name, text in documents().items():
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", _FENCE.sub("", text)):
            file, _, part = link.partition("#")
            target = (ROOT / name).parent / file if file else ROOT / name
            if not target.exists() or (part and part not in headings(target.read_text())):
                wrong.append(f"{name}: {link}")
    assert wrong == []


def test_the_alerts_are_listed() -> None:
    rules = (ROOT / "observability/prometheus/rules.yml").read_text()
    listed = (ROOT / "docs/operations.md").read_text()
    alerts = set(re.findall(r"alert: (\w+)", rules))
    assert set(re.findall(r"`((?:Synod|RabbitMQ)[A-Z]\w+)`", listed)) == alerts


def test_each_setting_that_is_named_exists() -> None:
    elsewhere = {
        "SYNOD_URL",
        "SYNOD_TIMEOUT",
        "SYNOD_CONFIG",
        "SYNOD_COMPLETE",
        "SYNOD_TRACEBACK",
        "SYNOD_CA_CERT",
        "SYNOD_CLIENT_CERT",
        "SYNOD_CLIENT_KEY",
        "SYNOD_BROKER_ADMIN",
    }  # of the command line itself
    of_tests = {"SYNOD_COMPOSE", "SYNOD_LONG", "SYNOD_EXAMPLES", "SYNOD_HTTP_PORT"}
    known = {f"SYNOD_{name.upper()}" for name in Settings.model_fields} | elsewhere | of_tests
    used = {
        (name, variable)
        for name, text in texts().items()
        for variable in re.findall(r"\bSYNOD_[A-Z_]*[A-Z]\b", text)
        if not variable.startswith("SYNOD_TEST_")
    }
    assert {one for one in used if one[1] not in known} == set()


def test_the_settings_of_the_genesis_are_listed() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    listed = re.search(r"from then on: (.*?)\.\n", text, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r"`(\w+)`", listed[1])) == ROLES | set(Constants.model_fields)


def test_every_setting_changes_something() -> None:
    # A setting that no module reads has no effect.
    code = "\n".join(python_files().values())
    unread = [name for name in Settings.model_fields if not re.search(rf"\.{name}\b", code)]
    assert unread == []


def test_each_section_of_the_design_that_is_cited_exists() -> None:
    """Given `design 4.5` in a comment, or `4.5` as what a deliberate bug breaks, then the document
    has that section.
    """
    headings = set(re.findall(r"^##+ (\d(?:\.\d+)?)\.? ", texts()["docs/design.md"], re.MULTILINE))
    assert {"1", "2.1", "3.9", "4.11", "8.5"} <= headings
    cited = {
        (name, number)
        for name, text in python_files().items()
        for several in re.findall(r"\b[Dd]esign\s+(\d[\d., and\n]*)", text)
        for number in re.findall(r"\d(?:\.\d+)?", several)
    }
    broken = {(mutant.name, mutant.rule) for mutant in load()}
    assert len(cited) > 30
    assert {one for one in cited | broken if one[1] not in headings} == set()
    stale = [name for name, text in python_files().items() if "DESIGN" + " section" in text]
    assert stale == []
