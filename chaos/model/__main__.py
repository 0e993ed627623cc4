"""`python -m chaos.model`: search the sub-models, and show what the mutants of the rules break."""

import sys
from typing import Annotated, Any

import typer

from chaos.model.rules import MUTANTS, UnknownMutant, checked
from chaos.model.scopes import FALLS_IN, REDUNDANT, SCOPES, VIEWS, VIEWS_SLOTS
from chaos.model.search import Found, System, breadth_first, walk
from chaos.model.system import MembershipSystem
from chaos.model.views import BROKEN_RULES, ViewSystem
from gateway.cli.console import note, out

_BROKEN = 1
_USAGE = 2
_WALK_STEPS = 150
_FOR_WALKS = "five"


def main(
    scopes: Annotated[
        list[str] | None, typer.Argument(help="Scopes; all that a search suits if there is none.")
    ] = None,
    mutants: Annotated[
        list[str] | None, typer.Option("--mutant", help="Break this rule, too; repeatable.")
    ] = None,
    every_mutant: Annotated[
        bool, typer.Option("--mutants", help="Try every mutant in the scope that catches it.")
    ] = False,
    depth: Annotated[int | None, typer.Option(help="Steps from genesis at most.")] = None,
    time: Annotated[float, typer.Option(help="Seconds for each search at most.")] = 60,
    walks: Annotated[
        int, typer.Option(help="Instead, walk at random so many times (scope five).")
    ] = 0,
    seed: Annotated[int, typer.Option(help="The seed of the walks.")] = 0,
) -> None:
    """Search breadth first, so that a counterexample is a shortest one. Fails if one is found, or
    with --mutants, if a mutant is not caught or a redundant one is.
    """
    names = scopes or ([_FOR_WALKS] if walks else [*SCOPES, VIEWS])
    if not scopes and not walks:
        names.remove(_FOR_WALKS)
    unknown = [name for name in names if name != VIEWS and name not in SCOPES]
    broken = frozenset(mutants or ())
    try:
        checked(broken - BROKEN_RULES.keys())
    except UnknownMutant as error:
        unknown.append(str(error))
    if unknown:
        note(f"Unknown: {'; '.join(unknown)}. Scopes: {', '.join(SCOPES)}")
        sys.exit(_USAGE)
    if every_mutant:
        sys.exit(0 if _try_mutants(depth, time) else _BROKEN)
    whole = True
    for name in names:
        system = _system(name, broken)
        found = (
            walk(system, seed, walks, _WALK_STEPS, time)
            if walks
            else breadth_first(system, depth, time)
        )
        out().print(_line(name, found, bool(walks)), highlight=False, soft_wrap=True)
        for goal in system.goals:
            if goal in found.goals:
                out().print(f"    {found.goals[goal]:>3} steps: {goal}", highlight=False)
            else:
                out().print(f"    not met: {goal}", highlight=False)
        whole &= found.violation is None
        _tell(found)
    sys.exit(0 if whole else _BROKEN)


def _system(name: str, mutants: frozenset[str]) -> System[Any]:
    if name == VIEWS:
        return ViewSystem(VIEWS_SLOTS, mutants)
    return MembershipSystem(SCOPES[name], mutants)


def _try_mutants(depth: int | None, time: float) -> bool:
    as_expected = True
    rules = [(m.rule, m.name, FALLS_IN.get(m.name, "")) for m in MUTANTS.values()]
    for rule, name, scope in [*rules, *(("4.11", name, VIEWS) for name in BROKEN_RULES)]:
        if scope:
            found = breadth_first(_system(scope, frozenset({name})), depth, time)
            caught = f"{scope}, {found.depth} steps, {found.states:,} states, {found.seconds:.1f} s"
            verdict = f"{found.violation or 'NOT CAUGHT'}  ({caught})"
            as_expected &= found.violation is not None
        else:
            verdict = f"redundant: {REDUNDANT[name]}"
        out().print(f"{rule:>5}  {name:<20} {verdict}", highlight=False, soft_wrap=True)
    return as_expected


def _line(name: str, found: Found[Any], walked: bool) -> str:
    if walked:
        return (
            f"{name}: {found.states:,} walks, {found.steps:,} steps, {found.seconds:.0f} s: "
            f"{found.violation or 'no violation'}"
        )
    reach = "exhausted" if found.exhausted else "NOT exhausted"
    return (
        f"{name}: {found.states:,} states, {found.steps:,} steps, depth {found.depth}, {reach}, "
        f"{found.seconds:.0f} s: {found.violation or 'no violation'}"
    )


def _tell(found: Found[Any]) -> None:
    for number, line in enumerate(found.story, 1):
        out().print(f"  {number:>3}. {line}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
