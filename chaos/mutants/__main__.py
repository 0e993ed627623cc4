"""`make mutants`: try every deliberate bug, and print what caught it; fails if one survives."""

import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import typer

from chaos.mutants.catalogue import Mutant, load
from chaos.mutants.hunt import Hunter, MutantResult
from gateway.cli.console import note, out

_ROOT = Path(__file__).parents[2]
_SURVIVED = 1


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Mutants, or rules such as 3.8; usually all.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="How many at once.")] = 1,
    seeds_max: Annotated[
        int | None, typer.Option(help="Limit every budget to this many seeds; tests run as usual.")
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Print the catalogue.")] = False,
    table: Annotated[
        Path | None, typer.Option(help="Also append the table to this file, row by row.")
    ] = None,
) -> None:
    """Apply the mutants one by one to a throw-away copy of the tree, and try to catch each."""
    mutants = _chosen(names or [])
    if only_list:
        for mutant in mutants:
            out().print(f"{mutant.rule:>5}  {mutant.name:<44} {mutant.why}", highlight=False)
        return
    hunter = Hunter(_ROOT)
    _say(table, _row("mutant", "rule", "seeds", "s", "caught by"))
    with ThreadPoolExecutor(jobs) as pool:
        hunts = [pool.submit(hunter.hunt, _cut(mutant, seeds_max)) for mutant in mutants]
        results = []
        for hunt in as_completed(hunts):
            results.append(hunt.result())
            _say(table, _told(results[-1]))
    survivors = [result.mutant.name for result in results if not result.caught]
    _say(table, f"{len(results) - len(survivors)} of {len(results)} mutants were caught")
    if survivors:
        note(f"survived: {', '.join(sorted(survivors))}")
        raise typer.Exit(_SURVIVED)


def _chosen(names: list[str]) -> list[Mutant]:
    mutants = load()
    known = {mutant.name for mutant in mutants} | {mutant.rule for mutant in mutants}
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"no such mutant or rule: {', '.join(unknown)}")
    return [m for m in mutants if not names or m.name in names or m.rule in names]


def _cut(mutant: Mutant, seeds_max: int | None) -> Mutant:
    if seeds_max is None or mutant.seeds <= seeds_max:
        return mutant
    from dataclasses import replace

    return replace(mutant, seeds=seeds_max)


def _told(result: MutantResult) -> str:
    seeds = str(result.seeds) if result.seeds else "test"
    by = result.by if result.caught else f"SURVIVED ({result.by})"
    return _row(result.mutant.name, result.mutant.rule, seeds, f"{result.seconds:.1f}", by)


def _row(mutant: str, rule: str, seeds: str, seconds: str, by: str) -> str:
    return f"{mutant:<44} {rule:>5} {seeds:>5} {seconds:>7}  {by}"


def _say(table: Path | None, line: str) -> None:
    out().print(line, highlight=False, soft_wrap=True, markup=False)
    sys.stdout.flush()
    if table is not None:
        with table.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    typer.run(main)
