"""All tests, in two processes: those that only compute go on beside those that mostly wait.

The former run at the lowest priority and with longer time limits, so that they take no processor
from clusters of real processes, whose tests have limits of time. With arguments this is pytest.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence

COMPUTING = ("actors", "checker", "fuzz", "house", "model", "scenarios", "simulator")
_TIMEOUT_S = 600

_PYTEST = (sys.executable, "-m", "pytest")


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    if arguments:
        return subprocess.run([*_PYTEST, *arguments], check=False).returncode
    folders = [f"tests/{name}" for name in COMPUTING]
    with tempfile.TemporaryFile() as output:
        beside = subprocess.Popen(
            ["nice", "-n", "19", *_PYTEST, f"--timeout={_TIMEOUT_S}", *folders],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            ignored = [f"--ignore={folder}" for folder in folders]
            code = subprocess.run([*_PYTEST, *ignored], check=False).returncode
            beside_code = beside.wait()
        finally:
            beside.terminate()
            beside.wait()
            output.seek(0)
            print(f"\nBeside these ran {', '.join(folders)}:", flush=True)
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return code or beside_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
