"""`make soak`: batch after batch of randomly drawn seeds, until one fails."""

import secrets
import sys

from gateway.cli.main import run

_BATCH = 500
_SEEDS = 1 << 48


def main() -> int:
    """Run until a batch fails; the exit code of that batch."""
    while True:
        first = secrets.randbelow(_SEEDS)
        arguments = ["sim", "--seeds", f"{first}:{first + _BATCH}", "--shrink", *sys.argv[1:]]
        code = run(arguments)
        if code:
            return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
