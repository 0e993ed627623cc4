"""The command `synod`; also `python -m synod`.

In a checkout the packages of the command line and the server lie beside this one. A wheel keeps
them in `synod/_app`, so that an installation adds no top-level package but `synod`; only this
command adds that folder to the import path.
"""

import sys
from pathlib import Path
from typing import NoReturn

_APP = Path(__file__).with_name("_app")


def main() -> NoReturn:
    """Run the command line and end the process."""
    if _APP.is_dir():
        sys.path.insert(0, str(_APP))
    from gateway.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
