"""Secrets and folders of a whole cluster that is started under `umask 000`.

Recognisable secrets are looked for wherever somebody else might read: logs, command lines, traces,
metrics, error pages, what commands print. Everything with contents belongs to its user alone.
"""

import base64
import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from chaos.cluster.local import Description, LocalCluster
from chaos.cluster.rabbitmq import BrokerCertificates, BrokerIdentity, PrivateBroker
from tests.certificates import Authority
from tests.long import only_long

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, only_long, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
TOKEN = "recognisable-token-4711-abcdef"
PASSWORD = "recognisable-password-0815"
KEY = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
OF_ALICE = "recognisable-login-password-1234"
SECRETS = (TOKEN, PASSWORD, KEY, OF_ALICE, "$argon2id$")
BEARING = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[LocalCluster]:
    """Over TLS in every direction, with a file of one piece and one of several, and a backup."""
    own = authority.issue("127.0.0.1", "127.0.0.1", "localhost")
    folder = tmp_path_factory.mktemp("open")
    certificates = BrokerCertificates(authority.cert, own.cert, own.key)
    identity = replace(BrokerIdentity.mint(), password=PASSWORD)
    (folder / "keys").write_text(f"synod-key-1:{KEY}\n")
    umask = os.umask(0)
    patch = pytest.MonkeyPatch()
    patch.setenv("SYNOD_CA_CERT", str(authority.cert))
    try:
        with PrivateBroker(
            folder / "rabbitmq", identity=identity, certificates=certificates
        ) as broker:
            description = Description.mint(
                broker=broker.url,
                counts={"proposers": 1, "acceptors": 3, "learners": 2, "stores": 1},
                settings={
                    "token": TOKEN,
                    "min_stores": "1",
                    "log_level": "debug",
                    "trace": "all",
                    "broker_ca": str(authority.cert),
                    "tls_cert": str(own.cert),
                    "tls_key": str(own.key),
                    "key_file": str(folder / "keys"),
                    "encrypt_journals": "true",
                },
                metrics=True,
            )
            with LocalCluster(folder / "cluster", description) as running:
                (folder / "large").write_bytes(os.urandom(3_000_000))
                for source, target in ((folder / "large", "large"), (ROOT / "LICENSE", "small")):
                    done = _synod(running, "put", str(source), target)
                    assert done.returncode == 0, done.stderr
                backup = _synod(running, "backup", str(folder / "backup"))
                assert backup.returncode == 0, backup.stderr
                yield running
    finally:
        patch.undo()
        os.umask(umask)


def _synod(cluster: LocalCluster, *words: str) -> subprocess.CompletedProcess[str]:
    environment = cluster.environment | {
        "PYTHONPATH": str(ROOT),
        "SYNOD_URL": cluster.url,
        "SYNOD_CA_CERT": os.environ["SYNOD_CA_CERT"],
    }
    return subprocess.run(
        [sys.executable, "-m", "synod", *words],
        env=environment,
        cwd=cluster.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _logged_in(client: httpx.Client) -> str:
    """The secret of a session that has written a file, of a user that has also tried wrongly."""
    alice = {
        "name": "alice",
        "password": OF_ALICE,
        "grants": [{"role": "admin", "path": ""}],
    }
    assert client.post("/v1/users", json=alice, headers=BEARING).status_code == 201
    asked = {"user": "alice", "password": f"{OF_ALICE}-wrong", "bearer": True}
    assert client.post("/v1/login", json=asked).status_code == 401
    answer = client.post("/v1/login", json=asked | {"password": OF_ALICE})
    assert answer.status_code == 201
    session: str = answer.json()["token"]
    headers = {"authorization": f"Bearer {session}"}
    assert client.put("/v1/files/hers", content=b"1", headers=headers).status_code == 201
    return session.rpartition("_")[2]


def _found_in(text: bytes, secrets: Sequence[str]) -> list[str]:
    return [secret for secret in secrets if secret.encode() in text]


def test_no_secret_is_in_logs_command_lines_traces_metrics_or_answers(
    cluster: LocalCluster, authority: Authority
) -> None:
    places: dict[str, bytes] = {}
    context = ssl.create_default_context(cafile=authority.cert)
    with httpx.Client(verify=context, base_url=cluster.url, timeout=30) as client:
        secrets = (*SECRETS, _logged_in(client))
    logs = [
        *(cluster.folder / "logs").iterdir(),
        *(cluster.folder.parent / "rabbitmq/log").iterdir(),
    ]
    for log in logs:
        places[f"log {log.name}"] = log.read_bytes()
    ours = f"{cluster.folder.parent}".encode()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                line, environment = (process / "cmdline").read_bytes(), b""
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if ours in line or ours in environment:
                places[f"process {process.name} {line[:60]!r}"] = line
    nodes = [name for name in cluster.nodes if cluster.process_id(name) is not None]
    assert len([place for place in places if place.startswith("process")]) >= len(nodes)
    with httpx.Client(verify=context, base_url=cluster.url) as client:
        for path in (
            *("cluster", "requests", "traces", "log", "files/none", "none"),
            *("users", "groups", "sessions", "tokens", "audit", "audit/refusals"),
        ):
            for headers in ({}, BEARING):
                places[f"/v1/{path}"] = client.get(f"/v1/{path}", headers=headers).content
        assert all(b"alice" in places[f"/v1/{kind}"] for kind in ("users", "sessions", "audit"))
        for path in ("/", "/docs", "/openapi.json", "/metrics", "/readyz", "/nothing"):
            places[path] = client.get(path, headers=BEARING).content
            places[f"{path} without"] = client.get(
                path, headers={"accept": "text/html", "authorization": f"Bearer x{TOKEN}"}
            ).content
        some_port = next(iter(cluster.description.metrics.values()))
        metrics = client.get(f"https://127.0.0.1:{some_port}/metrics", headers=BEARING)
        assert metrics.status_code == 200
        places["metrics of a node"] = metrics.content
    for words in (("status",), ("config",), ("ls", "--json"), ("node", "store-9"), ("doctor",)):
        done = _synod(cluster, *words)
        places[" ".join(words)] = (done.stdout + done.stderr).encode()
    assert all(places[place] for place in ("/metrics", "/v1/log", "status", "config", "doctor"))
    found = {place: _found_in(text, secrets) for place, text in places.items()}
    assert {place: secret for place, secret in found.items() if secret} == {}


def test_no_contents_are_in_clear_on_any_nodes_disk_or_in_the_backup(
    cluster: LocalCluster,
) -> None:
    """Given a cluster and a backup with a key, of which the data of running nodes is read."""
    large = (cluster.folder.parent / "large").read_bytes()
    pieces = [large[at : at + 64] for at in range(0, len(large), len(large) // 5)]
    pieces += [(ROOT / "LICENSE").read_bytes()[-200:]]
    read = 0
    for root in (cluster.folder / "data", cluster.folder.parent / "backup"):
        for path in root.rglob("*"):
            if path.is_file():
                raw = path.read_bytes()
                read += len(raw)
                assert not any(piece in raw for piece in pieces), path
    assert read > 2 * len(large)
    checked = _synod(cluster, "restore", str(cluster.folder.parent / "backup"), "--verify")
    assert checked.returncode == 0, checked.stderr


def test_data_logs_and_backups_are_their_users_alone_under_umask_000(
    cluster: LocalCluster,
) -> None:
    assert os.umask(0) == 0
    top = cluster.folder.parent
    names = set()
    for root in (cluster.folder / "data", top / "backup"):
        for path in (root, *root.rglob("*")):
            about = path.lstat()
            wanted = 0o700 if stat.S_ISDIR(about.st_mode) else 0o600
            assert stat.S_IMODE(about.st_mode) & ~wanted == 0, f"{path} {about.st_mode:o}"
            names.add(path.name)
    assert {"store-1", "acceptor-1", "backup"} <= names
    for folder in (cluster.folder, top / "rabbitmq"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (cluster.folder / "cluster.json", top / "rabbitmq/broker.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
