"""Keys that wrap data keys: where they come from, what is refused, and rotation."""

import os
import secrets
import stat
from pathlib import Path

import pytest

from broker.keys import KEY_BYTES, KeyRing, KeysRefused, new_key

DATA_KEY = secrets.token_bytes(KEY_BYTES)


def test_a_data_key_is_unwrapped_by_the_key_that_wrapped_it_and_by_no_other(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    made = new_key(mine)
    new_key(other)
    ring = KeyRing.from_file(mine)
    wrapped = ring.wrap(DATA_KEY, b"test")

    assert (ring.current_id, wrapped.key_id) == (made, made)
    assert ring.unwrap(wrapped, b"test", "it") == DATA_KEY
    with pytest.raises(KeysRefused, match=rf"^it is encrypted.*by key {made}; key_file: .*other"):
        KeyRing.from_file(other).unwrap(wrapped, b"test", "it")
    with pytest.raises(KeysRefused, match="is another's"):
        ring.unwrap(wrapped, b"another purpose", "it")
    for changed in (
        wrapped._replace(sealed=bytes([wrapped.sealed[0] ^ 1]) + wrapped.sealed[1:]),
        wrapped._replace(salt=bytes([wrapped.salt[0] ^ 1]) + wrapped.salt[1:]),
        wrapped._replace(sealed=b""),
    ):
        with pytest.raises(KeysRefused, match="was changed"):
            ring.unwrap(changed, b"test", "it")


def test_a_new_key_wraps_and_the_former_one_still_unwraps(tmp_path: Path) -> None:
    """Given a file to which a key is added, then its former key opens what it closed, until its
    line is removed.
    """
    file = tmp_path / "keys"
    former = new_key(file)
    wrapped = KeyRing.from_file(file).wrap(DATA_KEY, b"test")
    added = new_key(file)

    ring = KeyRing.from_file(file)
    assert (wrapped.key_id, ring.current_id) == (former, added)
    assert ring.unwrap(wrapped, b"test", "it") == DATA_KEY
    file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(KeysRefused, match=rf"by key {former}; .*holds {added}\."):
        KeyRing.from_file(file).unwrap(wrapped, b"test", "it")


def test_no_wrapping_repeats_itself(tmp_path: Path) -> None:
    """The one nonce of a wrapping is safe because each has a key of its own."""
    new_key(tmp_path / "keys")
    ring = KeyRing.from_file(tmp_path / "keys")
    made = [ring.wrap(DATA_KEY, b"test") for _ in range(20)]
    assert len({wrapped.salt for wrapped in made}) == len({w.sealed for w in made}) == 20


def test_a_file_of_keys_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        new_key(tmp_path / "keys")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_keys_come_from_a_command_that_no_shell_runs(tmp_path: Path) -> None:
    file = tmp_path / "the keys"
    made = new_key(file)

    ring = KeyRing.load(None, f"cat '{file}'")

    assert ring is not None
    assert ring.current_id == made
    for command, said in (
        (f"cat '{file}' | cat", "failed with code"),
        ("cat $HOME", "failed with code"),
        ("false", "false failed with code 1"),
        ("true", "holds no key"),
        ("no-such-program-of-synod", "can't be run: No such file"),
        ("'", "is no command"),
        ("", "is no command"),
    ):
        with pytest.raises(KeysRefused, match=said):
            KeyRing.load(None, command)
    assert KeyRing.load(None, None) is None


def test_what_is_no_key_is_refused_by_its_line_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    new_key(file)
    good = file.read_text()
    bad = good.replace("synod-key-1:", "synod-key-1:x")
    for text, said in (
        (good + bad, "line 2 is no key"),
        ("# mine\n\n" + good.strip() + "  # since May\nsecret", "line 4 is no key"),
        ("synod-key-1:AAAA", "line 1 is no key"),
        ("\xff\xfe", "line 1 is no key"),
        ("# none\n", "holds no key"),
        ("", "holds no key"),
    ):
        file.write_text(text)
        with pytest.raises(KeysRefused, match=said) as caught:
            KeyRing.from_file(file)
        assert good.strip()[12:] not in str(caught.value)
        assert "secret" not in str(caught.value)
    file.write_text("something else")
    with pytest.raises(KeysRefused, match="line 1"):
        new_key(file)
    assert file.read_text() == "something else"
    with pytest.raises(KeysRefused, match="can't be read: No such file"):
        KeyRing.from_file(tmp_path / "none")
