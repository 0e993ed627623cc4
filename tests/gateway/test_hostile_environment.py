"""Every command in a broken environment: one line, an exit code of the table, no traceback."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gateway.cli.main import run

ROOT = Path(__file__).parents[2]

READS = (
    ("ls",),
    ("stat", "x"),
    ("get", "x", "-"),
    ("get", "x", "got"),
    ("get", "-r", "d", "out"),
    ("backup", "copy"),
    ("watch",),
    ("status",),
)
WRITES = (
    ("put", "file", "x"),
    ("put", "-", "x"),
    ("put", "-r", "folder", "d"),
    ("rm", "x"),
    ("mkdir", "d"),
    ("mv", "a", "b"),
    ("cp", "a", "b"),
    ("txn", "steps.json"),
)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with what the commands send, and an environment without settings."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith("SYNOD_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"contents")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").write_bytes(b"a")
    (tmp_path / "steps.json").write_text('[{"op": "delete", "path": "a"}]')
    return tmp_path


class Ran:
    """The result of a command, checked for the rules that hold for every command."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        capsys.readouterr()
        with open("file", "rb") as file, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", os.fdopen(os.dup(file.fileno())))
            self.code = run(list(arguments))
            sys.stdin.close()
        self.out, self.err = capsys.readouterr()
        about = (arguments, self.code, self.err)
        assert "Traceback" not in self.err, about
        lines = self.err.splitlines()
        if "-r" in arguments:  # Each file that failed has a line of its own.
            lines = [line for line in lines if not line.startswith(("failed ", "put ", "get "))]
        assert len(lines) <= 1, about
        assert self.code or not lines, about


UNUSABLE = {
    "no url": {"SYNOD_URL": "not a url"},
    "another scheme": {"SYNOD_URL": "ftp://127.0.0.1"},
    "no host": {"SYNOD_URL": "http://"},
    "half an address": {"SYNOD_URL": "http://[::1"},
    "a port that is none": {"SYNOD_URL": "http://127.0.0.1:99999"},
    "a port of letters": {"SYNOD_URL": "http://127.0.0.1:http"},
    "a space": {"SYNOD_URL": "http://127.0 .0.1"},
    "a line end": {"SYNOD_URL": "http://127.0.0.1\n"},
    "a query": {"SYNOD_URL": "http://127.0.0.1:1/?a"},
    "a long label": {"SYNOD_URL": f"http://{'a' * 64}.invalid:1"},
    "a token of two lines": {"SYNOD_TOKEN": "one\ntwo"},
    "a token that ends in a line": {"SYNOD_TOKEN": "0123456789abcdef\n"},
    "a token beyond latin-1": {"SYNOD_TOKEN": "pässwörd€"},
    "a token that is no text": {"SYNOD_TOKEN": "\udc80"},
    "a proxy of no kind": {"SYNOD_URL": "http://g.invalid", "HTTP_PROXY": "nonsense://x"},
    "a broken proxy": {"SYNOD_URL": "http://g.invalid", "HTTP_PROXY": "http://[::1"},
    "a proxy that needs more": {"SYNOD_URL": "http://g.invalid", "ALL_PROXY": "socks5://127.0.0.1"},
    "no certificates": {"SYNOD_URL": "https://g.invalid", "SSL_CERT_FILE": "/nowhere"},
    "certificates that are none": {"SYNOD_URL": "https://g.invalid", "SSL_CERT_FILE": "file"},
}


@pytest.mark.parametrize("environment", UNUSABLE.values(), ids=UNUSABLE)
def test_what_can_not_be_used_is_named(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for command in (*READS, *WRITES, ("trace", "r")):
        ran = Ran(capsys, *command)

        assert (ran.code, ran.out) == (2, ""), (command, ran.err)
        assert ran.err.startswith("synod: ")
        assert "one\ntwo" not in ran.err
        assert any(name in ran.err for name in environment), (command, ran.err)


def test_secrets_are_not_in_messages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for url in ("http://me:hunter2@127.0.0.1:1", "ftp://me:hunter2@h", "http://me:hunter2@[::1"):
        ran = Ran(capsys, "ls", "--url", url)
        assert ran.code in (2, 6)
        assert "hunter2" not in ran.err


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """A server that says so, whatever it is asked, or nothing; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            held = []
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    break
                held.append(connection)
                if answer is None:
                    continue
                with connection:
                    # A request is read to its end before it is answered and the end is near.
                    connection.settimeout(0.05)
                    with suppress(OSError):
                        while connection.recv(65536):
                            pass
                    with suppress(OSError):
                        connection.sendall(answer)
            for connection in held:
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _http(status: str, body: bytes = b"<html>", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


STRANGERS = {
    # The server's response, the exit code of a read, the exit code of a write.
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n", 6, 3),
    "nothing": (b"", 6, 3),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", 6, 3),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", 6, 3),
    "a page": (_http("200 OK"), 1, 3),
    "other JSON": (_http("200 OK", b'{"a": 1}', Content_Type="application/json"), 1, 3),
    "a list": (_http("200 OK", b"[]", Content_Type="application/json"), 1, 3),
    "deep JSON": (_http("200 OK", b"[" * 100_000), 1, 3),
    "no page": (_http("404 Not Found"), 1, 3),
    "a conflict of others": (_http("409 Conflict"), 1, 3),
    "a redirection": (_http("301 Moved", Location="https://elsewhere"), 2, 2),
    "a broken server": (_http("500 Oops"), 1, 3),
    "a proxy without a gateway": (_http("502 Bad Gateway"), 6, 3),
    "a proxy that is busy": (_http("503 Busy"), 6, 3),
    "a proxy that wants a password": (_http("401 No"), 7, 7),
    "wrong compression": (_http("200 OK", b"plain", Content_Encoding="gzip"), 1, 3),
    "silence": (None, 6, 3),
}


@pytest.mark.parametrize(("answer", "read_code", "write_code"), STRANGERS.values(), ids=STRANGERS)
def test_what_is_no_gateway_is_recognized(
    answer: bytes | None,
    read_code: int,
    write_code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Given another server at the address, then a read has failed, and a write is undecided unless
    the answer can't come from behind it.
    """
    monkeypatch.setenv("SYNOD_TIMEOUT", "0.3" if answer is None else "20")
    with answering(answer) as port:
        monkeypatch.setenv("SYNOD_URL", f"http://127.0.0.1:{port}")
        for command in (*READS, *WRITES):
            if answer is None and command == ("status",):
                continue  # It has a patience of its own.
            ran = Ran(capsys, *command)
            expected = read_code if command in READS else write_code
            assert ran.code == expected, (command, ran.err)
    assert not list(Path().rglob("*.part"))


def test_failures_are_objects_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(_http("500 Oops")) as port:
        for command, code, kind in (
            (("ls", "--url", "nonsense"), 2, "Misconfigured"),
            (("ls", "a//b"), 2, "usage"),
            (("ls", "--nonsense"), 2, "usage"),
            (("ls", "--url", "http://127.0.0.1:1"), 6, "NotSent"),
            (("mkdir", "a", "--url", f"http://127.0.0.1:{port}"), 3, "ServerFailure"),
            (("put", "nothing", "a"), 1, "os"),
        ):
            ran = Ran(capsys, *command, "--json")
            told = json.loads(ran.err)
            assert (ran.code, told["exit_code"], told["kind"], ran.out) == (code, code, kind, "")
            assert told["error"]


def test_a_long_wait_is_explained_once(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(None) as port:
        url = f"http://127.0.0.1:{port}"
        capsys.readouterr()
        code = run(["stat", "x", "--url", url, "--timeout", "2.5"])

    told, failed = capsys.readouterr().err.splitlines()
    assert code == 6
    assert told == f"synod: waiting for {url}, for up to 2 s"
    assert failed.startswith(f"synod: no answer from {url}: it took too long")


# -- in processes of their own --------------------------------------------------------------------


def _shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which $synod is the command."""
    synod = f"{sys.executable} -m gateway.cli.main"
    return subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "synod": synod, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("$synod config >&-", 1),
        ("$synod config >/dev/full", 1),
        ("$synod config --json >/dev/full", 1),
        ("$synod put - x <&- --url http://127.0.0.1:1", 1),
        ("$synod txn - <&- --url http://127.0.0.1:1", 1),
        ("$synod ls --url http://127.0.0.1:1 2>&-", 6),
        ("$synod ls --url http://127.0.0.1:1 2>/dev/full", 6),
        ("PYTHONIOENCODING=ascii $synod ls é//b", 2),
        ("env -u HOME $synod up --data file/x", 1),
        ("$synod up --data /proc/nothing", 1),
        ("$synod up --broker amqp://127.0.0.1:port/", 2),
        ("SYNOD_PORT=many $synod up", 2),
        ("SYNOD_CONFIG=/ $synod up", 2),
        ("printf 'data = \"\\xff\"' > synod.toml; $synod up", 2),
    ],
)
def test_streams_settings_and_folders_that_are_wrong(script: str, code: int) -> None:
    ran = _shell(script)

    assert ran.returncode == code, ran
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) <= 1, ran.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("firehose --broker amqp://127.0.0.1:1/", 1),
        ("firehose", 2),
        ("restore nothing --verify", 1),
        ("restore /dev/null --data new", 1),
        ("restore folder --data file/x", 1),
        ("check /", 2),
        ("check file", 2),
        ("check nothing", 2),
        ("sim --seeds many", 2),
        ("sim --seeds 0:1 --trace file/x", 1),
        ("chaos nothing", 2),
        ("chaos store-crash --case nothing", 2),
        ("chaos store-crash --report file/x", 1),
        ("node store-1 --broker amqp://127.0.0.1:0/", 2),
        ("backup file/x --url http://127.0.0.1:1", 6),
    ],
)
def test_other_commands_that_are_used_wrongly(
    command: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    ran = run(command.split())
    out, err = capsys.readouterr()

    assert (ran, out) == (code, ""), err
    assert "Traceback" not in err
    # Chaos first prints its plan.
    assert len(err.splitlines()) == (1 if "--report" not in command else 2), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_command_and_leaves_nothing(
    port: int, here: Path, number: signal.Signals
) -> None:
    """Given a get whose reader is gone, and a put that waits for its input, when a signal arrives,
    then they end at once, report it in a line, and leave no partial file.
    """
    os.mkfifo(here / "slow")
    writing = os.open(here / "slow", os.O_RDWR)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli.main", "put", "slow", "x"),
        env={**os.environ, "PYTHONPATH": str(ROOT), "SYNOD_URL": f"http://127.0.0.1:{port}"},
        stderr=asyncio.subprocess.PIPE,
    )
    os.write(writing, b"x" * 1000)
    await asyncio.to_thread(_wait_until_taken, writing)
    process.send_signal(number)
    async with asyncio.timeout(10):
        _, err = await process.communicate()
    os.close(writing)

    assert process.returncode == 128 + number
    assert err.decode().startswith(f"synod: ended by {number.name}")
    assert err.count(b"\n") == 1
    assert sorted(os.listdir(here)) == ["file", "folder", "slow", "steps.json"]


def _wait_until_taken(pipe: int) -> None:
    """Until the other side has read what there was, and waits for more."""
    while struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]:
        time.sleep(0.02)
