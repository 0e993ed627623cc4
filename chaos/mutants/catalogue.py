"""The catalogue of deliberate bugs: small replacements of text, each of which breaks one rule.

The entries are data (`*.toml`). A mutant names what may catch it: rules of the simulator (see
`docs/simulator.md`), or one test, for bugs that only the runtime or the journal can show.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
FILES = (
    "paxos.toml",
    "votes.toml",
    "membership.toml",
    "views.toml",
    "answers.toml",
    "copies.toml",
    "journals.toml",
    "rights.toml",
    "senders.toml",
    "audit.toml",
    "quotas.toml",
    "accounts.toml",
    "recovery.toml",
)
_SEEDS = 20


class CatalogueWrong(Exception):
    """An entry is invalid, or no longer fits the source."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug. `rule` is the section and rule of the design that it breaks, such as `3.8`.

    Either `caught_by` names the simulator's rules that may fail within `seeds` seeds of `faults`,
    or `test` is the pytest address of a test whose own assertion must fail.
    """

    name: str
    rule: str
    why: str
    """A description of the bug in a few words."""
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...] = ()
    seeds: int = _SEEDS
    faults: str = "all"
    test: str = ""

    def __post_init__(self) -> None:
        if bool(self.caught_by) == bool(self.test):
            raise CatalogueWrong(f"{self.name}: either rules of the simulator or a test catch it")
        if self.old == self.new:
            raise CatalogueWrong(f"{self.name}: it changes nothing")

    def apply(self, root: Path) -> None:
        """Put the bug into the tree at `root`. Raises `CatalogueWrong` unless it fits once."""
        path = root / self.file
        if not path.is_file():
            raise CatalogueWrong(f"{self.name}: there is no {self.file}")
        text = path.read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise CatalogueWrong(
                f"{self.name}: {self.file} has the text to replace {found} times, not once: "
                f"{self.old!r}"
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def load() -> tuple[Mutant, ...]:
    """All mutants, in the order of the rules. Raises `CatalogueWrong`."""
    found = [
        _mutant(entry)
        for file in FILES
        for entry in tomllib.loads((_HERE / file).read_text(encoding="utf-8"))["mutant"]
    ]
    names = [mutant.name for mutant in found]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise CatalogueWrong(f"more than one mutant is called {', '.join(doubled)}")
    return tuple(sorted(found, key=_place))


def _mutant(entry: dict[str, Any]) -> Mutant:
    fields = {**entry, "caught_by": tuple(entry.get("caught_by", ()))}
    try:
        return Mutant(**fields)
    except TypeError as error:
        raise CatalogueWrong(f"{entry.get('name', '?')}: {error}") from error


def _place(mutant: Mutant) -> tuple[int, ...]:
    if not re.fullmatch(r"[34]\.\d{1,2}", mutant.rule):
        raise CatalogueWrong(f"{mutant.name}: {mutant.rule!r} is no rule such as 3.8")
    return tuple(int(part) for part in mutant.rule.split("."))
