"""Flags over environment over file over defaults; secrets never shown."""

from pathlib import Path

import pytest

from actors.options import Options
from gateway.errors import SettingsError
from gateway.settings import MASK, Settings, effective, load_settings, masked_url


def test_defaults_are_those_of_the_actors() -> None:
    settings = load_settings()

    assert settings.options() == Options()
    assert (settings.broker, settings.url) == ("memory://", "http://127.0.0.1:8080")


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("synod.toml").write_text('stores = 4\nlearners = 3\nacceptors = 7\ncluster = "file"\n')
    monkeypatch.setenv("SYNOD_LEARNERS", "4")
    monkeypatch.setenv("SYNOD_CLUSTER", "environment")

    settings = load_settings(cluster="flag", port=None)

    shown = {row.name: (row.value, row.source) for row in effective(settings, cluster="flag")}
    assert shown["proposers"] == (5, "default")
    assert shown["stores"] == (4, "file")
    assert shown["learners"] == (4, "environment")
    assert shown["cluster"] == ("flag", "flag")
    assert settings.options().names("store") == ("store-1", "store-2", "store-3", "store-4")


def test_another_file_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("stores = 5\n")
    monkeypatch.setenv("SYNOD_CONFIG", str(tmp_path / "other.toml"))
    assert load_settings().stores == 5

    monkeypatch.setenv("SYNOD_CONFIG", str(tmp_path / "nothing.toml"))
    with pytest.raises(SettingsError, match=r"nothing\.toml"):
        load_settings()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"acceptors": 4}, "odd"),
        ({"lease_ms": 300}, "too short"),
        ({"port": 65536}, "--port is 65536"),
        ({"broker": "http://localhost"}, "memory://"),
        ({"broker": "amqp:///"}, "host"),
        ({"host": "0.0.0.0"}, "loopback"),
        ({"metrics_host": "::"}, "loopback"),
        ({"host": "example.org"}, "address"),
        ({"token": "short"}, "16 or more"),
        ({"token": "with a space in the middle"}, "16 or more"),
        ({"cluster": "a b"}, "--cluster"),
        ({"stores": 1}, "min_stores"),
    ],
)
def test_what_can_not_be_used(flags: dict[str, object], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        load_settings(**flags)


def test_the_source_of_an_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNOD_PORT", "many")
    with pytest.raises(SettingsError, match="SYNOD_PORT is 'many'"):
        load_settings()

    monkeypatch.delenv("SYNOD_PORT")
    Path("synod.toml").write_text("colour = 1\n")
    with pytest.raises(SettingsError, match=r"no setting named 'colour' \(in synod.toml\)"):
        load_settings()

    # It was a setting once, without effect.
    Path("synod.toml").write_text("versions_kept = 3\n")
    with pytest.raises(SettingsError, match=r"no setting named 'versions_kept' \(in synod.toml\)"):
        load_settings()

    Path("synod.toml").write_text("= 1\n")
    with pytest.raises(SettingsError, match=r"synod.toml can't be read"):
        load_settings()


def test_the_file_may_list_several_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("synod.toml").write_text('broker = ["amqp://u:p@a/", "amqp://u:p@b:1/"]\n')
    assert load_settings().broker == "amqp://u:p@a/,amqp://u:p@b:1/"

    monkeypatch.setenv("SYNOD_BROKER", "amqp://c/, amqp://d/")
    assert load_settings().broker == "amqp://c/,amqp://d/"


@pytest.mark.parametrize(
    ("broker", "reason"),
    [
        ("", "must start with"),
        ("amqp://a/,http://b/", "must start with"),
        ("amqp://a/,amqp:///v", "names no host"),
        ("amqp://a/,amqp://b:0/", "port is 0"),
        ("memory://,amqp://a/", "can't be one of several"),
    ],
)
def test_each_of_several_brokers_must_be_usable(broker: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        load_settings(broker=broker)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:hunter2@host:5672/vhost",
        "amqp://user:hunter2@hunter2@host/",
        "amqp://:hunter2@host/",
        "amqps://user:hunter2/@host/",
        "amqp://user:hunter2@host/,amqp://user:hunter2@other/",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "hunter2" not in masked_url(url)

    settings = Settings(
        broker="amqp://u:hunter2@h/",
        token="hunter2-hunter2-",  # type: ignore[arg-type]
    )
    shown = effective(settings)
    assert "hunter2" not in str(shown)
    assert "hunter2" not in repr(shown)


def test_a_password_is_not_shown_in_a_complaint_either() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(broker="http://user:hunter2@host/")

    assert "hunter2" not in str(caught.value)


CREDENTIALS = """# Written by synod broker init.
SYNOD_CLUSTER=ours
SYNOD_BROKER=amqps://synod.ours.store-1:hunter2@a:5671/
SYNOD_BROKER_USERS=own
"""


@pytest.mark.parametrize("named", ["environment", "file"])
def test_a_nodes_credentials_go_over_the_environment_and_flags_over_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    credentials = tmp_path / "store-1.env"
    credentials.write_text(CREDENTIALS)
    # As compose files write it.
    monkeypatch.setenv("SYNOD_BROKER", "")
    monkeypatch.setenv("SYNOD_CLUSTER", "theirs")
    if named == "environment":
        monkeypatch.setenv("SYNOD_BROKER_CREDENTIALS", str(credentials))
    else:
        Path("synod.toml").write_text(f'broker_credentials = "{credentials}"\n')

    settings = load_settings()

    assert settings.broker == "amqps://synod.ours.store-1:hunter2@a:5671/"
    assert (settings.cluster, settings.broker_users) == ("ours", "own")
    shown = {row.name: (row.value, row.source) for row in effective(settings)}
    assert shown["broker"] == (f"amqps://synod.ours.store-1:{MASK}@a:5671/", "credentials")
    assert shown["broker_users"] == ("own", "credentials")
    assert shown["broker_credentials"] == (str(credentials), named)
    given = load_settings(broker="amqp://b/", cluster="flag")
    assert (given.broker, given.cluster, given.broker_users) == ("amqp://b/", "flag", "own")


def test_credentials_that_are_none_are_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A node never goes on with what the environment says instead."""
    monkeypatch.setenv("SYNOD_BROKER", "amqp://everybody:hunter2@a/")
    monkeypatch.setenv("SYNOD_BROKER_CREDENTIALS", str(tmp_path / "store-1.env"))
    with pytest.raises(SettingsError, match=r"broker_credentials names .*store-1\.env"):
        load_settings()

    # The engine makes a folder of what it is to mount, if it is not there.
    (tmp_path / "store-1.env").mkdir()
    with pytest.raises(SettingsError, match=r"broker_credentials names .*store-1\.env"):
        load_settings()
    (tmp_path / "store-1.env").rmdir()

    for text in ("", CREDENTIALS + "SYNOD_TOKEN=hunter2\n", "SYNOD_BROKER=amqp://hunter2@a/\n"):
        (tmp_path / "store-1.env").write_text(text)
        with pytest.raises(SettingsError, match="no file that synod broker init wrote") as caught:
            load_settings()
        assert "hunter2" not in str(caught.value)

    monkeypatch.setenv("SYNOD_BROKER_CREDENTIALS", "")
    assert load_settings().broker == "amqp://everybody:hunter2@a/"


def test_the_greatest_file_is_what_one_manifest_can_list() -> None:
    assert load_settings().greatest_file_bytes == 5 * 2**30
    small_chunks = load_settings(chunk_bytes=64 * 1024)
    assert small_chunks.greatest_file_bytes == (2**20 - 2) // 67 * 64 * 1024
