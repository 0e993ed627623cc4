"""What an installation adds and offers: the client alone, and with the server.

Nothing is downloaded: wheel and sdist are built here, and their dependencies are linked from this
environment (`tests.acceptance.installed`).
"""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.acceptance.installed import Installation, build, link_packages, requirements
from tests.house.test_imports import PACKAGES, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SERVER_ONLY = sorted(set(PACKAGES) - {"synod"})
COMMANDS_OF_SERVER = ("up", "node", "config", "backup", "restore", "keygen", "firehose", "chaos")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("installed")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    return build(ROOT, "wheel", folder / "dist")


@pytest.fixture(scope="module")
def client(folder: Path, wheel: Path) -> Installation:
    """As after `pip install synod`."""
    found = link_packages(requirements(wheel), folder / "client-packages")
    assert {"httpx", "rich", "typer"} <= found
    assert not {"aio-pika", "pydantic-settings", "starlette", "uvicorn"} & found
    return Installation.make(folder / "client", folder / "client-packages", wheel)


@pytest.fixture(scope="module")
def server(folder: Path, wheel: Path) -> Installation:
    """As after `pip install 'synod[server]'`."""
    found = link_packages(requirements(wheel, extra="server"), folder / "server-packages")
    assert {"aio-pika", "httpx", "pydantic-settings", "starlette", "uvicorn"} <= found
    return Installation.make(folder / "server", folder / "server-packages", wheel)


@contextmanager
def serving(*command: str | Path, cwd: Path, environment: dict[str, str]) -> Iterator[str]:
    """The URL of a cluster that `synod up` runs while the block does."""
    process = subprocess.Popen(
        [*map(str, command), "up", "--port", "0", "--data", str(cwd / "data")],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.fullmatch(r"Synod is ready at (\S+)\n", process.stdout.readline())
        assert found is not None
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def url(client: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster that runs from this tree."""
    environment = {**client.environment, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "synod")
    with serving(*command, cwd=tmp_path_factory.mktemp("up"), environment=environment) as found:
        yield found


# -- what is in them ------------------------------------------------------------------------------


def test_an_installation_adds_one_package(client: Installation) -> None:
    added = {path.name for path in client.site_packages.iterdir()}
    assert added == {"synod", "synod-0.1.0.dist-info"}

    for name in SERVER_ONLY:
        done = client.run("python", "-c", f"import {name}")
        assert f"No module named '{name}'" in done.stderr
    typed = client.site_packages / "synod/py.typed"
    assert typed.exists()


def test_a_wheel_from_the_sdist_is_the_same(wheel: Path, folder: Path) -> None:
    # Given an sdist that is unpacked elsewhere, when a wheel is built from it,
    sdist = build(ROOT, "sdist", folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (tree,) = (folder / "unpacked").iterdir()
    again = build(tree, "wheel", folder / "again")

    # then it has the same files, those of all packages, and the sdist has the tests as well.
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(zipfile.ZipFile(again).namelist()) == names
    assert {"synod/client.py", "synod/_app/actors/values.py"} <= names
    assert "synod/_app/gateway/ui/index.html" in names
    assert {path.name for path in tree.iterdir() if path.is_dir()} == {*PACKAGES, "tests"}


def test_an_editable_installation_finds_the_tree(folder: Path) -> None:
    packages = folder / "build-packages"
    link_packages([Requirement("hatchling")], packages)
    options = ("--no-build-isolation", "--editable", ROOT)
    editable = Installation.make(folder / "editable", packages, *options)

    found = editable.run("python", "-c", "import synod, actors; print(synod.__file__)")
    assert found.stdout.strip() == str(ROOT / "synod/__init__.py"), found.stderr


# -- the client alone -----------------------------------------------------------------------------


def test_the_library_needs_nothing_but_httpx(
    client: Installation, folder: Path, url: str, tmp_path: Path
) -> None:
    """Given an installation with httpx only, when a program puts a file and gets it, then it has
    the same bytes and tag, and errors have types.
    """
    link_packages([Requirement("httpx")], packages := folder / "httpx-packages")
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import asyncio, sys
from synod import AsyncClient, Client, NotFound, PreconditionFailed

data = bytes(range(256)) * 5000
with Client({url!r}) as client:
    written = client.put("from/a/wheel.bin", data, if_none_match="*", meta={{"of": "a wheel"}})
    entry = client.stat("from/a/wheel.bin")
    assert written.created and entry.etag == written.etag
    assert (entry.size, dict(entry.meta)) == (len(data), {{"of": "a wheel"}})
    assert client.read("from/a/wheel.bin") == data
    for error, path, tag in ((PreconditionFailed, "from/a/wheel.bin", "*"), (NotFound, "no", None)):
        try:
            client.put(path, b"", if_none_match=tag) if tag else client.read(path)
        except error as caught:
            print(type(caught).__name__, caught.kind)

async def again():
    async with AsyncClient({url!r}) as client:
        return await client.read("from/a/wheel.bin")

assert asyncio.run(again()) == data
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"rich", "typer", "pydantic"}}))
""",
        encoding="utf-8",
    )
    alone = Installation(client.folder, packages)

    done = alone.run("python", program)
    assert done.stderr == ""
    said = ["PreconditionFailed precondition-failed", "NotFound not-found", "[]"]
    assert done.stdout.splitlines() == said


def test_the_commands_of_a_client_need_no_server(
    client: Installation, url: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("by the command line")
    at = ("--url", url)

    assert client.run("synod", "put", tmp_path / "a.txt", "cli/", *at).returncode == 0
    got = client.run("synod", "get", "cli/a.txt", "-", *at)
    assert (got.returncode, got.stdout) == (0, "by the command line")
    listed = client.run("synod", "ls", "cli", "--json", *at)
    assert [entry["path"] for entry in json.loads(listed.stdout)] == ["cli/a.txt"]
    moved = client.run("python", "-m", "synod", "mv", "cli/a.txt", "cli/b.txt", *at)
    assert (moved.returncode, moved.stderr) == (0, "")
    assert client.run("synod", "status", *at).returncode == 0


@pytest.mark.parametrize("command", COMMANDS_OF_SERVER)
def test_the_commands_of_the_server_say_what_to_install(client: Installation, command: str) -> None:
    asked = client.run("synod", command, "--port", "0", "--help")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert re.fullmatch(
        rf"synod: {command} needs the server, and \w+ is not installed: "
        r"pip install 'synod\[server\]'\n",
        asked.stderr,
    )


def test_the_help_of_a_client_names_all_commands(client: Installation) -> None:
    shown = client.run("synod", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    for command in (*COMMANDS_OF_SERVER, "put", "get", "watch"):
        assert re.search(rf"\b{command}  ", shown.stdout)


# -- with the server ------------------------------------------------------------------------------


def test_a_wheel_with_the_server_serves(server: Installation, tmp_path: Path) -> None:
    environment = server.environment
    with serving(server.program("synod"), cwd=tmp_path, environment=environment) as url:
        (tmp_path / "a.txt").write_text("x")
        assert server.run("synod", "put", tmp_path / "a.txt", "a", "--url", url).returncode == 0
        taken = server.run("synod", "backup", tmp_path / "backup", "--url", url)
        assert taken.returncode == 0, taken.stderr
    checked = server.run("synod", "restore", tmp_path / "backup", "--verify")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    "arguments", [("sim", "--seeds", "1:2", "--jobs", "1"), ("check", "--help"), ("chaos", "-h")]
)
def test_a_wheel_with_the_server_has_the_commands_of_chaos(
    server: Installation, arguments: tuple[str, ...]
) -> None:
    done = server.run("synod", *arguments)
    assert done.returncode == 0, done.stderr


def test_an_image_finds_its_modules_by_name(server: Installation) -> None:
    """Given the path that the Dockerfile sets, then what health checks and chaos run by name in a
    container is found.
    """
    assert "PYTHONPATH=/opt/synod/app" in (ROOT / "Dockerfile").read_text()
    app = server.site_packages / "synod/_app"
    within = Installation(server.folder, Path(f"{app}:{server.packages}"))
    asked = within.run("python", "-m", "gateway.cli.healthcheck", "1", "/healthz")
    assert (asked.returncode, "nothing answers" in asked.stderr) == (1, True)
    done = within.run("python", "-c", "import chaos.scenarios.autopsy; print('found')")
    assert done.stdout == "found\n", done.stderr
