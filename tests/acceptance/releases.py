"""Former releases, kept as wheels in `releases/`, to run their nodes beside those of this tree.

A clone may come without tags or history, so the wheel itself is kept. It is the one that the
release's commit builds, file by file, without the documents of the HTTP API, which no test of mixed
versions needs and which are two thirds of it. To keep the release of this tree::

    python -m tests.acceptance.releases
"""

import hashlib
import tempfile
import zipfile
from pathlib import Path

from tests.acceptance.installed import build

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).with_name("releases")
SUMS = FOLDER / "SHA256SUMS"

_LEFT_OUT = "synod/_app/gateway/ui/vendor/"
_RUN = 'import runpy\n\nrunpy.run_module("synod", run_name="__main__")\n'


def kept() -> list[Path]:
    """The kept wheels, the latest release last."""
    return [FOLDER / line.split()[1] for line in SUMS.read_text().splitlines()]


def unpack(wheel: Path, folder: Path) -> tuple[str, ...]:
    """Unpack a wheel beside the dependencies of this environment.

    Returns what Python is given to run it: see `chaos.cluster.local.LocalCluster`.
    """
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    # Python puts the folder that it runs before all others on the path.
    (folder / "__main__.py").write_text(_RUN)
    return (str(folder),)


def keep() -> Path:
    """Build the wheel of this tree and keep it. The same tree gives the same files in it."""
    with tempfile.TemporaryDirectory() as folder:
        built = build(ROOT, "wheel", Path(folder))
        target = FOLDER / built.name
        with zipfile.ZipFile(built) as whole, zipfile.ZipFile(target, "w") as kept_one:
            for member in whole.infolist():
                if not member.filename.startswith(_LEFT_OUT):
                    kept_one.writestr(member, whole.read(member), compresslevel=9)
    lines = [line for line in _sums() if not line.endswith(f"  {target.name}")]
    lines.append(f"{hashlib.sha256(target.read_bytes()).hexdigest()}  {target.name}")
    SUMS.write_text("".join(f"{line}\n" for line in lines))
    return target


def _sums() -> list[str]:
    return SUMS.read_text().splitlines() if SUMS.exists() else []


if __name__ == "__main__":
    print(keep().relative_to(ROOT))
