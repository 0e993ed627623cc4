"""The contents of the compose files and of the files beside them, without an engine."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.options import Options
from broker.addresses import split_urls
from broker.tls import BrokerTls
from chaos.cluster.rabbitmq import NET_TICK_S
from chaos.cluster.sites import sites_of
from gateway.http.tls import ServerTls, TlsFiles

ROOT = Path(__file__).parents[2]
SINGLE, HA = "docker-compose.yml", "docker-compose.ha.yml"
SHARED = "compose/services.yml"
ROLES = ("proposer", "acceptor", "learner", "store", "gateway", "rabbitmq")
SITES = {"site-1", "site-2", "site-3"}
CREDENTIALS = "${RABBITMQ_USER}:${RABBITMQ_PASSWORD}"
MEMBERS = set(Options().members)

Service = dict[str, Any]


def read(file: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return content


def services(file: str) -> dict[str, Service]:
    """The services of a file, each with what it extends, as compose merges them."""
    found: dict[str, Service] = {}
    for name, own in read(file)["services"].items():
        extends = own.pop("extends", None)
        base = read(extends["file"])["services"][extends["service"]] if extends else {}
        found[name] = {key: merged(base.get(key), own.get(key)) for key in base | own}
    return found


def merged(base: Any, own: Any) -> Any:
    """Two values of one key."""
    if isinstance(base, dict) and isinstance(own, dict):
        return base | own
    if isinstance(base, list) and isinstance(own, list):
        return base + own
    return base if own is None else own


def of_sites(role: str) -> Counter[str]:
    """How many members of a role are on each site."""
    return Counter(
        service["labels"]["synod.site"]
        for name, service in services(HA).items()
        if name.startswith(f"{role}-")
    )


@pytest.mark.parametrize(
    ("file", "others"),
    [
        (SINGLE, {"gateway-1", "rabbitmq"}),
        (HA, {"gateway-1", "gateway-2", "rabbitmq-1", "rabbitmq-2", "rabbitmq-3"}),
    ],
)
def test_every_node_has_a_container_and_a_volume_of_its_own(file: str, others: set[str]) -> None:
    found = services(file)
    keeping = MEMBERS | others | {"prometheus", "grafana"}

    assert set(found) - {"proxy"} == keeping == set(read(file)["volumes"])
    for name in MEMBERS | {other for other in others if other.startswith("gateway")}:
        assert found[name]["command"] == ["node", name]
        own = [one for one in found[name]["volumes"] if not one.startswith("${TLS_FOLDER")]
        assert own == [f"{name}:/data"]


@pytest.mark.parametrize("file", [SINGLE, HA])
def test_ports_are_published_on_this_machine_only(file: str) -> None:
    published = [port for service in services(file).values() for port in service.get("ports", ())]

    assert all(port.startswith("127.0.0.1:") for port in published), published
    insides = Counter(port.rpartition(":")[2] for port in published)
    consoles = 3 if file == HA else 1
    assert insides == {"8080": 1, "15672": consoles, "9090": 1, "3000": 1}


@pytest.mark.parametrize("file", [SINGLE, HA])
def test_nothing_has_privileges_and_nodes_write_nowhere_but_into_their_volume(file: str) -> None:
    for name, service in services(file).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        # Its image starts as root, to hand its volume to the user as which it goes on.
        assert ("cap_add" in service) == name.startswith("rabbitmq"), name
        assert "SYS_ADMIN" not in service.get("cap_add", ()), name
        if name in MEMBERS or name.startswith(("gateway", "proxy", "prometheus")):
            assert service["read_only"], name


@pytest.mark.parametrize("file", [SINGLE, HA])
def test_amqp_is_spoken_with_tls_only_and_no_container_gets_the_key_of_the_ca(file: str) -> None:
    configuration = (ROOT / "compose/rabbitmq-tls.conf").read_text()
    assert "listeners.tcp = none\nlisteners.ssl.default = 5671\n" in configuration
    for name, service in services(file).items():
        mounted = " ".join(service.get("volumes", ()))
        assert "ca.key" not in mounted
        if name in MEMBERS or name.startswith("gateway"):
            assert "/ca.pem:/etc/synod/ca.pem:ro" in mounted
            environment = service["environment"]
            assert environment["SYNOD_BROKER_CA"] == "/etc/synod/ca.pem"
            urls = split_urls(environment["SYNOD_BROKER"])
            assert all(url.startswith("amqps://") and url.endswith(":5671/") for url in urls)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_make_up_makes_certificates_whatever_the_umask_and_renews_those_that_expire(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tls"

    def make(days: str = "") -> str:
        script = (ROOT / "compose/certificates.sh").read_text()
        if days:
            script = script.replace("\nDAYS=365\n", f"\nDAYS={days}\n")
        return subprocess.run(
            ["bash", "-c", f"umask 000; {script}", "certificates.sh", str(folder)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert make(days="20").count("Made a certificate") == 2
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [
        "ca.key",
        "ca.pem",
        "gateway.pem",
        "rabbitmq.pem",
    ]
    ca = (folder / "ca.pem").read_text()
    assert make().count("Made a certificate") == 2, "they would expire within a month"
    assert make() == ""
    assert (folder / "ca.pem").read_text() == ca
    context = BrokerTls(folder / "ca.pem").context()
    server = ServerTls(TlsFiles(folder / "gateway.pem"))
    assert server.why_invalid() == ""
    assert context.get_ca_certs()


@pytest.mark.parametrize(("file", "targets"), [(SINGLE, "targets"), (HA, "targets-ha")])
def test_prometheus_asks_every_node_and_every_broker(file: str, targets: str) -> None:
    found = services(file)
    folder = ROOT / "observability/prometheus"
    asked = [
        host.partition(":")[0]
        for group in (
            *read("observability/prometheus/prometheus.yml")["scrape_configs"][0]["static_configs"],
            *yaml.safe_load((folder / targets / "gateways.yml").read_text()),
            *yaml.safe_load((folder / targets / "brokers.yml").read_text()),
        )
        for host in group["targets"]
    ]

    chosen = targets if file == HA else f"${{PROMETHEUS_TARGETS:-{targets}}}"
    mounted = f"./observability/prometheus/{chosen}:/etc/synod/targets:ro"
    assert mounted in found["prometheus"]["volumes"]
    assert sorted(asked) == sorted(set(found) - {"proxy", "prometheus", "grafana"})


def test_both_files_run_the_same_members() -> None:
    alike = ("image", "command", "volumes", "healthcheck", "build")
    single, ha = (
        {name: {key: service.get(key) for key in alike} for name, service in found.items()}
        for found in (services(SINGLE), services(HA))
    )

    for name in MEMBERS | {"gateway-1"}:
        for found in (single[name], ha[name]):
            # Before several gateways a proxy speaks TLS, if any does.
            mounted = found["volumes"] or []
            found["volumes"] = [each for each in mounted if "gateway.pem" not in each]
        assert single[name] == ha[name]


def test_any_one_site_may_die() -> None:
    every = {role: of_sites(role) for role in ROLES}

    assert set().union(*every.values()) == SITES
    for role, sites in every.items():
        for site in SITES:
            left = sites.total() - sites[site]
            if role in ("acceptor", "rabbitmq"):
                assert left > sites.total() / 2, f"{site} holds a majority of {role}s"
            else:
                # Writes need this many stores, and one of each other role.
                needed = Options().min_stores if role == "store" else 1
                assert left >= needed, f"without {site} there are {left} of {role}"


def test_chaos_takes_the_same_sites() -> None:
    found = services(HA)
    nodes = sorted(MEMBERS | {"gateway-1", "gateway-2"})

    sites = sites_of(nodes, ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"])

    of_each = {name: site for site, names in sites.items() for name in names}
    assert of_each == {
        name: service["labels"]["synod.site"]
        for name, service in found.items()
        if "labels" in service
    }


def test_a_node_waits_for_the_broker_of_its_own_site_and_knows_all() -> None:
    found = services(HA)

    for name, service in found.items():
        if name not in MEMBERS and not name.startswith("gateway"):
            continue
        [broker] = service["depends_on"]
        assert found[broker]["labels"] == service["labels"], name
        assert service["environment"]["SYNOD_QUEUES"] == "session"
        urls = split_urls(service["environment"]["SYNOD_BROKER"])
        hosts = [url.removeprefix(f"amqps://{CREDENTIALS}@") for url in urls]
        assert hosts == ["rabbitmq-1:5671/", "rabbitmq-2:5671/", "rabbitmq-3:5671/"]


def settings_in(name: str) -> dict[str, str]:
    """The settings of one of RabbitMQ's files."""
    lines = (ROOT / "compose" / name).read_text().splitlines()
    return dict(line.split(" = ") for line in lines if line and not line.startswith("#"))


def test_the_brokers_know_each_other_and_one_that_reaches_no_other_pauses() -> None:
    brokers = {name: one for name, one in services(HA).items() if one.get("hostname", "") == name}
    configuration = settings_in("rabbitmq-cluster.conf")

    peers = {value for key, value in configuration.items() if ".classic_config.nodes." in key}
    assert peers == {f"rabbit@{name}" for name in brokers}
    handling = "cluster_partition_handling"
    assert configuration[handling] == "pause_if_all_down"
    assert configuration[f"{handling}.pause_if_all_down.recover"] == "autoheal"
    for name, broker in brokers.items():
        own = f"{name}.conf"
        mounted = f"./compose/{own}:/etc/rabbitmq/conf.d/30-others.conf:ro"
        assert mounted in broker["volumes"]
        assert set(settings_in(own).values()) == peers - {f"rabbit@{name}"}
        assert broker["secrets"] == ["erlang_cookie"]
        arguments = broker["environment"]["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"]
        assert arguments == f"-kernel net_ticktime {NET_TICK_S}"


def test_the_proxy_knows_every_gateway() -> None:
    gateways = {name for name in services(HA) if name.startswith("gateway")}
    configuration = (ROOT / "compose/haproxy.cfg").read_text()

    for backend in ("ready", "running"):
        section = re.search(rf"^backend {backend}\n((?:.+\n)*)", configuration, re.MULTILINE)
        assert section is not None
        assert set(re.findall(r"^    server (\S+) \1:8080$", section[1], re.MULTILINE)) == gateways


def test_no_credential_is_in_the_repository() -> None:
    text = "".join((ROOT / file).read_text() for file in (SINGLE, HA, SHARED))
    for name in re.findall(r"\$\{(\w*(?:PASSWORD|TOKEN)\w*)[:}]", text):
        assert f"{name}=" in (ROOT / "Makefile").read_text()
    assert "guest" not in text
    secret = [
        ".env",
        ".env.part",
        ".secrets/token",
        ".secrets/erlang_cookie",
        ".secrets/broker/store-1.env",
        ".secrets/tls/ca.key",
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *secret],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ignored.stdout.split() == secret


def test_the_image_is_made_from_the_code_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        line.split()[1]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
    }

    assert "*" in lines
    assert {"actors", "broker", "gateway", "observability", "chaos", "synod"} <= copied
    assert {line[1:] for line in lines if line.startswith("!")} >= copied
