"""mutmut with the kinds of change that our tests miss, and without those that show nothing.

It adds calls that are left out, errors that are not raised, and conditions that always or never
hold: mutmut itself changes parts of expressions only. It leaves out texts, which are mostly for
people to read, and `None` for a value or an argument, which the type checker refuses before any
test.
"""

import sys
from collections.abc import Iterator

import libcst as cst
from mutmut.mutation import mutators

_UNTOLD = {
    mutators.operator_string,
    mutators.operator_arg_removal,
    mutators.operator_assignment,
    mutators.operator_lambda,
}


SHOW_ALL = ("show", "--all")
"""`show` for the several changes that follow at once: mutmut shows one, and is slow to start."""


def left_out(node: cst.Expr) -> Iterator[cst.Pass]:
    """A call whose value is not used."""
    if isinstance(node.value, cst.Call | cst.Await):
        yield cst.Pass()


def not_raised(node: cst.Raise) -> Iterator[cst.Pass]:
    """An error that is not raised."""
    yield cst.Pass()


def forced(node: cst.If) -> Iterator[cst.If]:
    """A condition that always holds, or never."""
    for value in ("True", "False"):
        yield node.with_changes(test=cst.Name(value))


def main() -> None:
    """Run mutmut's command line with these kinds of change."""
    from mutmut.__main__ import cli  # The import reads the settings of the current folder.

    operators = mutators.mutation_operators
    assert isinstance(operators, list), (
        "this version of mutmut stores its kinds of change differently"
    )
    operators[:] = [
        *(pair for pair in operators if pair[1] not in _UNTOLD),
        (cst.Expr, left_out),
        (cst.Raise, not_raised),
        (cst.If, forced),
    ]
    arguments = sys.argv[1:]
    if tuple(arguments[:2]) == SHOW_ALL:
        for name in arguments[2:]:
            cli(["show", name], standalone_mode=False)
    else:
        cli(arguments)


if __name__ == "__main__":
    main()
