"""mutmut with the kinds of change that our tests let in, and without those that tell nothing.

A call that is left out, an error that is not raised, a condition that always or never holds: mutmut
itself changes parts of expressions only. Left out are texts, which are mostly what people read, and
`None` for a value or an argument, which the type checker refuses before any test.
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
"""`show` for several changes at once, which follow: mutmut shows one, and takes long to begin."""


def left_out(node: cst.Expr) -> Iterator[cst.Pass]:
    """A call whose value nobody uses."""
    if isinstance(node.value, cst.Call | cst.Await):
        yield cst.Pass()


def not_raised(node: cst.Raise) -> Iterator[cst.Pass]:
    """An error that goes unnoticed."""
    yield cst.Pass()


def forced(node: cst.If) -> Iterator[cst.If]:
    """A condition that always holds, or never."""
    for value in ("True", "False"):
        yield node.with_changes(test=cst.Name(value))


def main() -> None:
    """Run mutmut's command line with these kinds of change."""
    from mutmut.__main__ import cli  # It reads the settings of the folder when it is imported.

    operators = mutators.mutation_operators
    assert isinstance(operators, list), "mutmut keeps its kinds of change in another way now"
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
