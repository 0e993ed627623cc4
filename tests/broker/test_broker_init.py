"""`synod broker init`: what it makes on RabbitMQ and in files, and that it may be repeated."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import aiormq
import httpx
import pytest

from broker.credentials import environment_of, path_of, read_passwords
from broker.definitions import SERVICES, definitions_of, password_hash
from broker.topology import Topology
from gateway.cli.main import run
from tests.broker.users import PreparedBroker
from tests.long import only_long

COUNTS = {"PROPOSERS": "1", "ACCEPTORS": "3", "LEARNERS": "2", "STORES": "2"}
NODES = (
    "proposer-1",
    *(f"acceptor-{number}" for number in (1, 2, 3)),
    *(f"{role}-{number}" for role in ("learner", "store") for number in (1, 2)),
    "gateway-1",
    "gateway-2",
)

Init = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "credentials"


@pytest.fixture
def init(
    tmp_path: Path,
    folder: Path,
    prepared: PreparedBroker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Init:
    """Runs the command for a new cluster; its code, output and errors."""
    monkeypatch.chdir(tmp_path)
    who = prepared.broker.identity
    host = urlsplit(prepared.broker.url).netloc.rpartition("@")[2]
    settings = {
        **COUNTS,
        "CLUSTER": f"init-{uuid4().hex[:8]}",
        "BROKER": f"amqp://{host}/,amqp://127.0.0.1:1/",
        "BROKER_ADMIN": f"{who.user}:{who.password}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"SYNOD_{name}", value)

    def init(*arguments: str) -> tuple[int, str, str]:
        command = ["broker", "init", "--credentials", str(folder), "--gateways", "2", *arguments]
        if "--definitions" not in arguments:
            command += ["--management", prepared.broker.management_url]
        code = run(command)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return init


def url_of(folder: Path, name: str) -> str:
    """The first broker in the file of a user."""
    return environment_of(folder, name)["SYNOD_BROKER"].split(",")[0]


async def logs_on(folder: Path, name: str, password: str | None = None) -> bool:
    url = url_of(folder, name)
    if password is not None:
        url = url.replace(f":{urlsplit(url).password}@", f":{password}@")
    try:
        connection = await aiormq.connect(url)
    except aiormq.exceptions.AMQPConnectionError:
        return False
    await connection.close()
    return True


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def texts_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def state_of(prepared: PreparedBroker, cluster: str) -> dict[str, object]:
    """All that RabbitMQ holds of a cluster, but hashes of passwords, which have new salts."""
    who = prepared.broker.identity
    address = f"{prepared.broker.management_url}api/definitions"
    held = httpx.get(address, auth=(who.user, who.password), timeout=30).json()
    parts = ("users", "permissions", "topic_permissions", "exchanges", "queues", "bindings")
    found: dict[str, object] = {}
    for part in parts:
        for one in held[part]:
            one.pop("password_hash", None)
        texts = [json.dumps(one, sort_keys=True) for one in held[part]]
        found[part] = sorted(text for text in texts if f"synod.{cluster}." in text)
    return found


@pytest.mark.rabbitmq
async def test_it_makes_users_and_files_and_may_be_repeated(
    init: Init, folder: Path, prepared: PreparedBroker
) -> None:
    code, out, err = init()
    assert (code, err) == (0, "")
    assert "users and the exchanges" in out
    names = (*NODES, *SERVICES)
    passwords = read_passwords(folder, names)
    assert set(passwords) == set(names)
    assert len(set(passwords.values())) == len(names)
    assert min(map(len, passwords.values())) >= 32
    # Neither printed, nor open to others.
    assert not any(password in out for password in passwords.values())
    assert mode_of(folder) == 0o700
    assert set(texts_of(folder)) == {f"{name}.env" for name in names}
    assert {mode_of(path_of(folder, name)) for name in names} == {0o600}
    for name in names:
        assert await logs_on(folder, name)
    store = environment_of(folder, "store-1")
    cluster = store["SYNOD_CLUSTER"]
    assert store["SYNOD_BROKER_USERS"] == "own"
    assert [urlsplit(url).username for url in store["SYNOD_BROKER"].split(",")] == [
        f"synod.{cluster}.store-1"
    ] * 2
    before = state_of(prepared, cluster)
    assert len(before["users"]) == len(names)  # type: ignore[arg-type]
    assert len(before["exchanges"]) == 2 + 5 + 5 + len(NODES)  # type: ignore[arg-type]

    # When it is repeated, then nothing changes.
    texts = texts_of(folder)
    assert init()[0] == 0
    assert texts_of(folder) == texts
    assert state_of(prepared, cluster) == before

    # When a file is lost, or a user is, then the next run mends it.
    path_of(folder, "store-1").unlink()
    with prepared.management() as api:
        api.delete_user(f"synod.{cluster}.store-2")
    code, out, _ = init()
    assert code == 0
    assert "new passwords: store-1\n" in out
    assert await logs_on(folder, "store-1")
    assert await logs_on(folder, "store-2")
    assert not await logs_on(folder, "store-1", passwords["store-1"])
    assert state_of(prepared, cluster) == before


@pytest.mark.rabbitmq
async def test_a_rotated_password_ends_the_thiefs_connection(init: Init, folder: Path) -> None:
    assert init()[0] == 0
    before = read_passwords(folder, NODES)
    connection, other = [await aiormq.connect(url_of(folder, f"store-{n}")) for n in (1, 2)]
    code, out, _ = init("--rotate", "store-1")
    assert code == 0
    assert "new passwords: store-1\n" in out
    after = read_passwords(folder, NODES)
    assert {name for name in NODES if before[name] != after[name]} == {"store-1"}
    assert not await logs_on(folder, "store-1", before["store-1"])
    assert await logs_on(folder, "store-1")
    await asyncio.wait([connection.closing], timeout=20)
    assert connection.is_closed
    assert (await other.channel()).number
    await other.close()

    code, out, err = init("--rotate", "store-9")
    assert code == 2
    assert "store-9" in err


@only_long
@pytest.mark.rabbitmq
async def test_the_user_of_a_former_node_is_named_and_removed(
    init: Init, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert init()[0] == 0
    monkeypatch.setenv("SYNOD_STORES", "1")
    monkeypatch.setenv("SYNOD_MIN_STORES", "1")
    assert "other users of this cluster: store-2;" in init()[1]
    assert await logs_on(folder, "store-2")
    url = url_of(folder, "store-2")
    code, out, _ = init("--remove", "store-2")
    assert (code, "removed: store-2" in out) == (0, True)
    assert not path_of(folder, "store-2").exists()
    with pytest.raises(aiormq.exceptions.AMQPConnectionError):
        await aiormq.connect(url)
    assert init("--remove", "store-1")[0] == 2


@pytest.mark.rabbitmq
def test_a_refusal_says_what_to_do(
    init: Init, folder: Path, prepared: PreparedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = prepared.topology.user("operator")
    monkeypatch.setenv("SYNOD_BROKER_ADMIN", f"{name}:{prepared.passwords['operator']}")
    code, _, err = init()
    assert code == 1
    assert "needs a user with the tag `administrator`" in err
    monkeypatch.setenv("SYNOD_BROKER_ADMIN", "nobody")
    assert init()[0] == 2
    path_of(folder, "store-1").write_text("SYNOD_BROKER=amqp://localhost/\n")
    monkeypatch.delenv("SYNOD_BROKER_ADMIN")
    code, _, err = init()
    assert code == 1
    assert "store-1.env has no SYNOD_BROKER with a password" in err


def test_a_member_that_is_added_later_gets_a_user_beside_those_of_the_founding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given settings of the founding, which stay as they are, then a named member is one more."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**COUNTS, "BROKER": "amqp://u:p@127.0.0.1:1/"}.items():
        monkeypatch.setenv(f"SYNOD_{name}", value)
    folder, definitions = tmp_path / "credentials", tmp_path / "definitions.json"
    command = ["broker", "init", "--credentials", str(folder), "--definitions", str(definitions)]

    assert run([*command, "--member", "store-3", "--member", "store-1"]) == 0
    users = [user["name"] for user in json.loads(definitions.read_text())["users"]]
    assert [user.rpartition(".")[2] for user in users if ".store-" in user] == [
        "store-1",
        "store-2",
        "store-3",
    ]
    assert environment_of(folder, "store-3")["SYNOD_BROKER"].startswith("amqp://")
    capsys.readouterr()
    assert run([*command, "--member", "gateway-9"]) == 2
    assert "--gateways" in capsys.readouterr().err


def test_a_password_is_never_part_of_the_definitions() -> None:
    """Given RabbitMQ's own example of a hash, then this one is the same."""
    assert (
        password_hash("test12", bytes.fromhex("908DC60A"))
        == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )
    text = json.dumps(
        definitions_of(Topology("c", users="own"), {"store-1": "the-password", "operator": "other"})
    )
    assert "the-password" not in text
    assert '"password"' not in text
