"""Synod's own clients and https: what each failure says; cookies, HSTS and refused settings."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from chaos.cluster.rabbitmq import free_ports
from chaos.load.http1 import Connection
from gateway.cli import healthcheck
from gateway.doctor.clocks import check_clocks
from gateway.doctor.findings import Grade
from gateway.errors import SettingsError
from gateway.http.app import GatewayApp
from gateway.http.auth import COOKIE, TLS_COOKIE
from gateway.http.tls import ServerTls, TlsFiles
from gateway.settings import Settings, load_settings
from synod.client import AsyncClient
from synod.errors import InvalidRequest, Misconfigured, SynodError
from synod.tls import ClientTls, causes
from tests.certificates import Authority, Pair
from tests.gateway.conftest import serving, serving_app
from tests.gateway.fake import FakeCluster

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests-0123"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("localhost", "localhost", "127.0.0.1")


@asynccontextmanager
async def _tls_port(pair: Pair, client_ca: Path | None = None) -> AsyncIterator[int]:
    app = GatewayApp(FakeCluster(), Settings(tls_cert=pair.cert, tls_key=pair.key))
    async with serving_app(app, None, ServerTls(TlsFiles(pair.cert, pair.key, client_ca))) as port:
        yield port


async def _cluster(
    url: str,
    ca_cert: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
) -> None:
    async with AsyncClient(
        url, patience_s=1, ca_cert=ca_cert, client_cert=client_cert, client_key=client_key
    ) as synod:
        await synod.cluster()


async def test_the_library_the_load_the_doctor_and_the_health_check_speak_https(
    authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = authority.issue("client")
    async with _tls_port(pair, client_ca=authority.cert) as port:
        url = f"https://127.0.0.1:{port}"
        await _cluster(
            url,
            ca_cert=str(authority.cert),
            client_cert=str(own.cert),
            client_key=str(own.key),
        )
        monkeypatch.setenv("SYNOD_CA_CERT", str(authority.cert))
        monkeypatch.setenv("SYNOD_CLIENT_CERT", str(own.cert))
        monkeypatch.setenv("SYNOD_CLIENT_KEY", str(own.key))
        await _cluster(url)
        connection = Connection.to(url)
        assert (await connection.request("GET", "/healthz")).status == 200
        connection.close()
        context = ClientTls.of(None, None, None).context(trust_env=False)
        assert (await check_clocks({f"{url}/healthz": context})).status is Grade.OK
        monkeypatch.setenv("SYNOD_TLS_CERT", str(pair.cert))
        monkeypatch.setenv("SYNOD_TLS_CLIENT_CA", str(authority.cert))
        assert await asyncio.to_thread(healthcheck.main, [str(port), "/healthz"]) == 0
        monkeypatch.delenv("SYNOD_TLS_CERT")
        assert await asyncio.to_thread(healthcheck.main, [str(port), "/healthz"]) == 1


async def test_each_failure_says_what_to_do(authority: Authority, pair: Pair) -> None:
    ca = str(authority.cert)
    expired = authority.issue("localhost", "127.0.0.1", file="expired", days=(-2, -1))
    elsewhere = authority.issue("gateway.example", file="elsewhere")
    for served, trusted, said in (
        (pair, "", "no CA that is trusted here: name the CA's file with --ca-cert or"),
        (expired, ca, "has expired: have it renewed"),
        (elsewhere, ca, "for another name: use a name of the certificate in --url"),
    ):
        async with _tls_port(served) as port:
            with pytest.raises(Misconfigured, match=said):
                await _cluster(f"https://127.0.0.1:{port}", ca_cert=trusted)
    async with _tls_port(pair) as port:
        with pytest.raises(InvalidRequest, match="this port speaks TLS: write https://"):
            await _cluster(f"http://127.0.0.1:{port}")
    async with serving(FakeCluster(), Settings()) as port:
        with pytest.raises(Misconfigured, match="speaks no TLS: write http://"):
            await _cluster(f"https://127.0.0.1:{port}", ca_cert=ca)
    async with _tls_port(pair, client_ca=authority.cert) as port:
        with pytest.raises(SynodError):
            await _cluster(f"https://127.0.0.1:{port}", ca_cert=ca)


def test_files_that_can_not_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate")
    own, other = authority.issue("one"), authority.issue("two")
    locked = authority.issue("locked", passphrase=b"secret")
    for ca, cert, key, said in (
        (tmp_path / "none", "", "", r"none \(--ca-cert or SYNOD_CA_CERT\) can't be read"),
        (text, "", "", r"text \(--ca-cert or SYNOD_CA_CERT\) holds no certificate"),
        ("", own.cert, other.key, "are not a certificate and its private key"),
        ("", locked.cert, locked.key, "is encrypted"),
        ("", "", own.key, "SYNOD_CLIENT_KEY is set, but SYNOD_CLIENT_CERT is not"),
    ):
        with pytest.raises(Misconfigured, match=said):
            ClientTls.of(str(ca), str(cert), str(key)).context(trust_env=False)


@pytest.mark.parametrize(
    ("settings", "secure"),
    [
        (Settings(token=SecretStr(TOKEN)), False),
        (Settings(token=SecretStr(TOKEN), tls_proxy=True), True),
        (Settings(token=SecretStr(TOKEN), tls_cert=Path("cert.pem")), True),
    ],
)
async def test_cookies_and_hsts_follow_the_settings_and_no_header_of_a_request(
    settings: Settings, secure: bool
) -> None:
    transport = httpx.ASGITransport(GatewayApp(FakeCluster(), settings))
    forged = {"x-forwarded-proto": "https" if not secure else "http", "forwarded": "proto=https"}
    async with httpx.AsyncClient(transport=transport, base_url="https://synod.example") as client:
        answer = await client.post("/v1/login", json={"token": TOKEN}, headers=forged)
        cookie = answer.headers["set-cookie"]
        name = TLS_COOKIE if secure else COOKIE
        assert cookie.startswith(f"{name}=")
        assert ("Secure" in cookie) is secure
        assert "Path=/" in cookie
        assert "Domain" not in cookie
        assert ("strict-transport-security" in answer.headers) is secure
        assert (await client.get("/v1/cluster")).status_code == 200
        local = await client.get("/healthz", headers={"host": "localhost:8080"})
        assert "strict-transport-security" not in local.headers
        gone = await client.post("/v1/logout")
        assert gone.headers["set-cookie"].startswith(f"{name}=")
        assert ("Secure" in gone.headers["set-cookie"]) is secure


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"host": "0.0.0.0"}, "host is '0.0.0.0': without TLS the token would cross"),
        ({"metrics_host": "::"}, "metrics_host is '::': without TLS"),
        ({"host": "0.0.0.0", "tls_proxy": True}, "without TLS the token would cross"),
        ({"tls_key": "key.pem"}, "tls_key is set, but tls_cert is not"),
        ({"tls_client_ca": "ca.pem"}, "tls_client_ca is set, but tls_cert is not"),
        ({"broker_key": "key.pem"}, "broker_key is set, but broker_cert is not"),
        ({"broker": "amqp://u:pass@h/", "broker_ca": "ca.pem"}, "write amqps://"),
        ({"broker": "amqps://u:pass@h/?no_verify_ssl=1"}, "can't set no_verify_ssl"),
        ({"broker": "amqps://u:pass@h/?cafile=x&keyfile=y"}, "can't set cafile, keyfile"),
    ],
)
def test_settings_that_would_give_secrets_away_are_refused(
    flags: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings(token=TOKEN, **flags)
    assert "pass@" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_other_addresses_are_served_with_tls_or_if_told_so() -> None:
    assert load_settings(token=TOKEN, host="0.0.0.0", tls_cert="cert.pem").url.startswith("https:")
    assert load_settings(token=TOKEN, host="0.0.0.0", insecure=True).url.startswith("http:")


def _synod(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")}
    return subprocess.run(
        [sys.executable, "-m", "synod", *words],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_cluster_over_https_and_its_commands_and_sighup(
    authority: Authority, tmp_path: Path
) -> None:
    """And under `umask 000`, with a token that is then looked for."""
    live = authority.issue("localhost", file="cluster")
    (port,) = free_ports(1)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNOD_")}
    log = (tmp_path / "log").open("wb")
    serving = subprocess.Popen(
        [sys.executable, "-m", "synod", "up", "--port", str(port)],
        cwd=tmp_path,
        env={
            **kept,
            "PYTHONPATH": str(ROOT),
            "SYNOD_LOG_LEVEL": "debug",
            "SYNOD_TOKEN": TOKEN,
            "SYNOD_TLS_CERT": str(live.cert),
            "SYNOD_TLS_KEY": str(live.key),
        },
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        umask=0,
    )
    try:
        assert serving.stdout is not None
        assert f"ready at https://127.0.0.1:{port}" in serving.stdout.readline()
        at = ("--url", f"https://localhost:{port}")
        (tmp_path / "a").write_text("hello" * 100_000)
        ca = ("--ca-cert", str(authority.cert))
        put = _synod("put", str(tmp_path / "a"), "a", *at, *ca, SYNOD_TOKEN=TOKEN)
        assert put.returncode == 0, put.stderr
        status = _synod("status", *at, SYNOD_CA_CERT=str(authority.cert), SYNOD_TOKEN=TOKEN)
        assert status.returncode == 0, status.stderr
        refused = _synod("ls", *at, SYNOD_TOKEN=TOKEN)
        assert (refused.returncode, "--ca-cert" in refused.stderr) == (2, True)
        live.key.write_text("nothing")
        serving.send_signal(signal.SIGHUP)
        wrong = _synod("ls", *at, *ca, SYNOD_TOKEN=f"{TOKEN}x")
        assert wrong.returncode == 7, "it is served by the former certificate"
        line = Path(f"/proc/{serving.pid}/cmdline").read_bytes().decode()
    finally:
        serving.terminate()
        rest, _ = serving.communicate(timeout=20)
        log.close()
    logged = (tmp_path / "log").read_text()
    assert "the former certificate stays in use" in logged
    for text in (logged, rest, line, status.stdout, put.stdout, wrong.stderr, refused.stderr):
        assert TOKEN not in text
    made = [tmp_path / "synod-data", *(tmp_path / "synod-data").rglob("*")]
    assert len(made) > 10
    for path in made:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.timeout(10)
def test_errors_that_came_from_each_other_are_looked_at_once() -> None:
    one, other = OSError("one"), OSError("other")
    one.__context__, other.__context__ = other, one
    group = ExceptionGroup("both", [one, other])
    assert list(causes(group)) == [group, one, other]
