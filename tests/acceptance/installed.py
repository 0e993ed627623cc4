"""Built packages in environments of their own, without the network.

Dependencies are linked from this environment: the packages that the metadata of the built wheel
requires, and what those require in turn.
"""

import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import BytesParser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def build(tree: Path, target: str, folder: Path) -> Path:
    """Build a `wheel` or an `sdist` of `tree` into `folder`."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=tree)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def requirements(wheel: Path, *, extra: str = "") -> list[Requirement]:
    """What the metadata of `wheel` requires, with `extra`."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(name))
    given = map(Requirement, metadata.get_all("Requires-Dist", []))
    return [one for one in given if one.marker is None or one.marker.evaluate({"extra": extra})]


def link_packages(wanted: Iterable[Requirement], folder: Path) -> set[str]:
    """Link packages and their dependencies into `folder`; the names of all of them."""
    found: dict[str, Distribution] = {}
    todo = list(wanted)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # For another version of Python, or an extra that is not installed here.
        needed = map(Requirement, found[name].requires or [])
        todo += [
            one
            for one in needed
            if one.marker is None
            or any(one.marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras})
        ]
    folder.mkdir()
    for package in found.values():
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(package.locate_file(top))).resolve())
    return set(found)


@dataclass(frozen=True)
class Installation:
    """An environment with Synod; `packages` is a folder of what it was installed with."""

    folder: Path
    packages: Path

    @classmethod
    def make(cls, folder: Path, packages: Path, *options: str | Path) -> "Installation":
        """An empty environment, and what `pip install OPTIONS` adds to it."""
        venv.create(folder, with_pip=False, symlinks=True)
        made = cls(folder, packages)
        run(
            *(sys.executable, "-m", "pip", "--python", made.program("python"), "install"),
            *("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", *options),
            cwd=folder,
            PYTHONPATH=str(packages),
        )
        return made

    @property
    def site_packages(self) -> Path:
        """Where packages are installed."""
        (found,) = self.folder.glob("lib/python3*/site-packages")
        return found

    @property
    def environment(self) -> dict[str, str]:
        """No folder of this tree is on the path."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")}
        return {**kept, "PYTHONPATH": str(self.packages), "COLUMNS": "200"}

    def program(self, name: str) -> Path:
        """A program of the environment."""
        return self.folder / "bin" / name

    def run(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The result of a program of the environment."""
        return subprocess.run(
            [str(self.program(name)), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
