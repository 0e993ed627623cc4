"""Users, groups and sessions on the command line."""

import asyncio
import json
import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import sessions
from gateway.cli.main import run
from synod.errors import Misconfigured

PASSWORD = "correct horse battery"
Synod = Callable[..., Coroutine[Any, Any, tuple[int, str, str]]]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SYNOD_TOKEN", raising=False)
    return tmp_path / "config"


@pytest.fixture
def synod(port: int, capsys: pytest.CaptureFixture[str], config: Path) -> Synod:
    async def synod(*words: str) -> tuple[int, str, str]:
        command = [*words, "--url", f"http://127.0.0.1:{port}"]
        code = await asyncio.to_thread(run, command)
        said = capsys.readouterr()
        return code, said.out, said.err

    return synod


async def test_users_log_in_and_act_as_themselves(
    synod: Synod, config: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    given = ("--password-file", str(secret))

    assert await synod("user", "group", "add", "devs", "-g", "write:/src") == (0, "", "")
    add = ("user", "add", "alice", "--group", "devs", "-g", "read:/docs")
    assert await synod(*add, *given) == (0, "", "")
    code, listed, _ = await synod("user", "ls", "--json")
    (alice,) = json.loads(listed)
    assert (code, alice["groups"], alice["has_password"]) == (0, ["devs"], True)
    assert "alice" in (await synod("user", "ls"))[1]
    assert "write:/src" in (await synod("user", "group", "ls"))[1]

    old_umask = os.umask(0)
    try:
        assert await synod("login", "--user", "alice", *given) == (0, "", "")
    finally:
        os.umask(old_umask)
    kept = config / "synod" / "sessions.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    _, me, _ = await synod("whoami")
    assert me.startswith("user alice, group devs: read:/docs, write:/src; session ")
    assert (await synod("mkdir", "/src/a"))[0] == 0
    assert (await synod("mkdir", "/z"))[0] == 7
    assert (await synod("user", "add", "eve", "--no-password"))[0] == 7
    code, _, said = await synod("user", "set-password", "alice", *given)
    assert (code, "give the current one" in said) == (1, True)
    code, shown, _ = await synod("session", "ls", "--json")
    (session,) = json.loads(shown)
    assert (code, session["user"], session["current"]) == (0, "alice", True)
    assert "alice" in (await synod("session", "ls"))[1]

    assert await synod("logout") == (0, "", "")
    assert json.loads(kept.read_text()) == {}
    assert await synod("whoami") == (0, "the administrator: everything\n", "")
    assert (await synod("logout"))[0] == 0


async def test_grants_and_groups_change_and_end(synod: Synod) -> None:
    assert (await synod("user", "add", "alice", "--no-password"))[0] == 0
    for words, code in (
        (("user", "grant", "alice", "write:/a", "operate"), 0),
        (("user", "revoke", "alice", "operate"), 0),
        (("user", "revoke", "alice", "operate"), 1),
        (("user", "join", "alice", "none"), 4),
        (("user", "group", "add", "devs"), 0),
        (("user", "group", "grant", "devs", "read"), 0),
        (("user", "join", "alice", "devs"), 0),
        (("user", "group", "revoke", "devs", "read"), 0),
        (("token", "create", "ci", "--group", "devs"), 0),
        (("user", "leave", "alice", "devs"), 0),
        (("user", "group", "rm", "devs"), 0),
        (("user", "rm", "alice"), 0),
        (("user", "rm", "alice"), 4),
        (("session", "revoke", "none"), 4),
    ):
        assert (await synod(*words))[0] == code, words


async def test_a_session_that_has_ended_is_forgotten_and_a_wrong_password_keeps_none(
    synod: Synod, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    given = ("--password-file", str(secret))
    await synod("user", "add", "alice", *given)
    assert (await synod("login", "--user", "bob", *given))[0] == 7
    assert not (config / "synod" / "sessions.json").exists()
    await synod("login", "--user", "alice", *given)
    monkeypatch.setenv("SYNOD_TOKEN", "any-token-that-goes-before")
    assert (await synod("whoami"))[1] == "the administrator: everything\n"
    await synod("user", "rm", "alice")
    monkeypatch.delenv("SYNOD_TOKEN")
    assert (await synod("whoami"))[0] == 7
    assert await synod("logout") == (0, "", "synod: the session had ended before\n")


def test_a_session_is_for_its_gateway_alone_and_its_file_for_its_user(config: Path) -> None:
    sessions.keep("https://one.example", "syn_1")
    sessions.keep("http://one.example:8080/", "syn_2")
    for url, token in (
        ("https://one.example:443/", "syn_1"),
        ("https://ONE.example", "syn_1"),
        ("http://one.example:8080", "syn_2"),
        ("http://one.example", None),
        ("https://one.example:444", None),
        ("https://one.example.evil.example", None),
        ("https://one.example@evil.example", None),
        ("no url", None),
    ):
        assert sessions.token_for(url) == token, url
    path = config / "synod" / "sessions.json"
    path.chmod(0o640)
    with pytest.raises(Misconfigured, match="may be read by others"):
        sessions.token_for("https://one.example")
    path.chmod(0o600)
    path.write_text("[]")
    with pytest.raises(Misconfigured, match="holds no sessions"):
        sessions.token_for("https://one.example")
    path.write_text("{")
    with pytest.raises(Misconfigured, match="can't be read"):
        sessions.forget("https://one.example")
