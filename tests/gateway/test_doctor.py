"""`synod doctor` finds what keeps a node from running, and says what to change.

RabbitMQ, its users and its alarms are real.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from yarl import URL

from chaos.cluster.hosts import LOOPBACK
from chaos.cluster.rabbitmq import (
    BrokerFailedError,
    PrivateBroker,
    PrivateBrokerCluster,
    free_ports,
)
from gateway.doctor.clocks import Difference, check_clocks, difference
from gateway.doctor.findings import Diagnosis, Grade, worst
from gateway.doctor.host import check_file_system, check_permissions, check_python, judge_sync
from gateway.doctor.rabbitmq import check_nodes, check_version
from gateway.settings import Settings
from tests.gateway.conftest import serving
from tests.gateway.fake import FakeCluster
from tests.long import only_long

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A RabbitMQ with its management API, whose users and alarms these tests may change."""
    broker = PrivateBroker(tmp_path_factory.mktemp("rabbitmq"), management=True)
    try:
        broker.start()
        wait_until_described(broker)
        yield broker
    except BrokerFailedError as error:
        pytest.fail(str(error), pytrace=False)
    finally:
        broker.kill()


def wait_until_described(broker: PrivateBroker) -> None:
    """Wait until the management API describes all nodes, some seconds after their start."""
    who = broker.identity
    deadline = time.monotonic() + 30
    while True:
        nodes = httpx.get(f"{broker.management_url}api/nodes", auth=(who.user, who.password)).json()
        if all("enabled_plugins" in node for node in nodes):
            return
        assert time.monotonic() < deadline, nodes
        time.sleep(0.1)


def examine(
    *arguments: str, settings: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code of `synod doctor`, and its findings by their check. `within`: a command that
    runs it.
    """
    ran = subprocess.run(
        [*within, sys.executable, "-m", "gateway.cli.main", "doctor", "--json", *arguments],
        cwd=ROOT,
        env={**os.environ, **(settings or {})},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ran.stderr == b""
    findings = json.loads(ran.stdout)["findings"]
    return ran.returncode, {finding["check"]: finding for finding in findings}


def at(broker: PrivateBroker, tmp_path: Path) -> list[str]:
    return [
        *("--broker", broker.url, "--data", str(tmp_path)),
        *("--management", broker.management_url),
    ]


@pytest.mark.rabbitmq
def test_a_broker_that_a_node_could_use_is_well_and_keeps_nothing_of_the_probe(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    code, findings = examine(*at(broker, tmp_path))
    assert code == 0
    statuses = {name: finding["status"] for name, finding in findings.items()}
    well = ("broker", "broker version", "permissions", "broker cluster", "clock")
    assert {statuses[check] for check in well} == {"ok"}
    assert "rabbitmq_prometheus" in findings["plugins"]["change"]
    for what in ("queues", "exchanges"):
        assert "doctor" not in broker.control("--quiet", f"list_{what}", "name")


@pytest.mark.rabbitmq
def test_a_wrong_password_is_named(broker: PrivateBroker, tmp_path: Path) -> None:
    wrong = str(URL(broker.url).with_password("wrong"))
    code, findings = examine("--broker", wrong, "--data", str(tmp_path))
    assert (code, findings["broker"]["status"]) == (1, "wrong")
    assert "refuses the user" in findings["broker"]["found"]
    assert "permissions" not in findings


@pytest.mark.rabbitmq
@pytest.mark.parametrize(
    ("configure", "write", "read", "step"),
    [
        ("", ".*", ".*", "configure the exchange"),
        pytest.param(".*", "", ".*", "bind the queue", marks=only_long),
        pytest.param(".*", ".*", "", "bind the queue", marks=only_long),
        (".*", ".*", r"^(?!.*delay)", "let messages of the queue"),
    ],
)
def test_the_command_that_is_suggested_grants_what_is_lacking(
    broker: PrivateBroker, tmp_path: Path, configure: str, write: str, read: str, step: str
) -> None:
    """Given a user who may not do all that a node does, when the suggested command has run, then
    the user may.
    """
    user = f"user'{os.urandom(4).hex()}"
    broker.control("add_user", user, "secret")
    broker.control("set_permissions", user, configure, write, read)
    url = str(URL(broker.url).with_user(user).with_password("secret"))
    arguments = ["--broker", url, "--data", str(tmp_path)]

    code, findings = examine(*arguments)
    assert (code, findings["permissions"]["status"]) == (1, "wrong")
    assert step in findings["permissions"]["found"]
    program, *words = shlex.split(findings["permissions"]["change"])
    assert program == "rabbitmqctl"
    broker.control(*words)

    code, findings = examine(*arguments)
    assert (code, findings["permissions"]["status"]) == (0, "ok")


@pytest.mark.rabbitmq
def test_an_alarm_is_the_reason_why_nothing_is_taken(broker: PrivateBroker, tmp_path: Path) -> None:
    broker.control("set_vm_memory_high_watermark", "0")
    try:
        code, findings = examine(*at(broker, tmp_path))
    finally:
        broker.control("set_vm_memory_high_watermark", "0.4")
    assert (code, findings["permissions"]["status"]) == (1, "wrong")
    assert "alarm" in findings["permissions"]["found"]


@pytest.mark.rabbitmq
def test_brokers_of_two_clusters_are_wrong(
    broker: PrivateBroker, amqp_url: str, tmp_path: Path
) -> None:
    """Given two brokers of different clusters: nodes would receive nothing from each other."""
    code, findings = examine("--broker", f"{broker.url},{amqp_url}", "--data", str(tmp_path))
    assert (code, findings["broker cluster"]["status"]) == (1, "wrong")
    assert "of different clusters" in findings["broker cluster"]["found"]
    assert "doctor" not in broker.control("--quiet", "list_exchanges", "name")


@pytest.mark.rabbitmq
@pytest.mark.slow
@pytest.mark.timeout(240)
@only_long
def test_the_brokers_of_one_cluster_are_well(tmp_path: Path) -> None:
    two = (LOOPBACK,) * 2
    cluster = PrivateBrokerCluster(tmp_path / "cluster", hosts=two, management=True, metrics=True)
    try:
        cluster.start()
        cluster.wait_whole()
        first = cluster.brokers[0]
        wait_until_described(first)
        asked = ("--broker", cluster.url, "--management", first.management_url)
        data = ("--data", str(tmp_path))
        code, findings = examine(*asked, *data, settings={"SYNOD_QUEUES": "session"})
        _, named = examine(*asked, *data)
    finally:
        cluster.stop()
    well = ("broker", "permissions", "broker cluster", "plugins", "broker nodes", "net_ticktime")
    assert {check: findings[check]["status"] for check in well} == dict.fromkeys(well, "ok")
    assert code == 0
    assert named["broker cluster"]["status"] == "warning"


def test_each_broker_of_a_list_is_looked_for(tmp_path: Path) -> None:
    ports = free_ports(2)
    urls = ",".join(f"amqp://127.0.0.1:{port}/" for port in ports)
    ran = subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", "doctor", "--broker", urls],
        cwd=ROOT,
        env={**os.environ, "SYNOD_DATA": str(tmp_path), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (1, "")
    for port in ports:
        assert f"127.0.0.1:{port} can't be reached" in ran.stdout
    assert "→ Start RabbitMQ there" in ran.stdout


def test_the_embedded_default_needs_no_broker(tmp_path: Path) -> None:
    code, findings = examine("--data", str(tmp_path / "new"))
    assert (code, findings["broker"]["status"]) == (0, "skipped")
    assert findings["disk sync"]["status"] in ("ok", "warning")
    assert not (tmp_path / "new").exists()


def test_a_data_folder_that_is_a_file_is_wrong(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("")
    code, findings = examine("--data", str(data))
    assert (code, findings["data folder"]["status"]) == (1, "wrong")


def test_a_reserve_that_the_disk_does_not_have_is_wrong(tmp_path: Path) -> None:
    settings = {"SYNOD_DISK_RESERVE_BYTES": str(1 << 60)}
    code, findings = examine("--data", str(tmp_path), settings=settings)
    assert (code, findings["free disk"]["status"]) == (1, "wrong")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_without_room_is_wrong_and_is_not_filled(small_disk: Path) -> None:
    """Given a disk that is smaller than the reserve, and so fast that a second of syncs would fill
    it, and then one that is full.
    """
    code, findings = examine("--data", str(small_disk))
    assert (code, findings["free disk"]["status"]) == (1, "wrong")
    assert findings["file system"]["status"] == "warning"
    assert findings["disk sync"]["status"] in ("ok", "warning")

    figures = os.statvfs(small_disk)
    with (small_disk / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, figures.f_bavail * figures.f_frsize)
    code, findings = examine("--data", str(small_disk))
    assert findings["disk sync"]["status"] == "wrong"
    assert "can't be written: No space left on device" in findings["disk sync"]["found"]


def test_the_syncs_of_a_slow_disk_are_measured(tmp_path: Path) -> None:
    """Given a disk whose syncs take 40 ms longer, by the hand of strace(1)."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    slow = ("-f", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_exit=40000")
    strace = ("strace", "-o", str(tmp_path / "calls"), *slow)
    _, findings = examine("--data", str(tmp_path), within=strace)
    assert findings["disk sync"]["status"] in ("warning", "wrong")
    assert re.match(r"p50 ([4-9]\d|\d{3,})\.\d ms", findings["disk sync"]["found"])


def test_few_file_descriptors_are_a_warning(tmp_path: Path) -> None:
    few = ("sh", "-c", 'ulimit -n 512; exec "$@"', "sh")
    code, findings = examine("--data", str(tmp_path), within=few)
    assert (code, findings["file descriptors"]["status"]) == (0, "warning")
    assert "256 of the 1000" in findings["file descriptors"]["found"]


async def test_a_gateway_of_this_host_has_the_same_clock() -> None:
    async with serving(FakeCluster(), Settings()) as port:
        compared = await check_clocks({f"http://127.0.0.1:{port}/healthz": False})
    assert compared.status is Grade.OK


# -- what can't be made on every machine ---------------------------------------------------------


def test_a_folder_that_others_may_write_to_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert check_permissions(tmp_path).status is Grade.WARNING
    tmp_path.chmod(0o700)
    assert check_permissions(tmp_path).status is Grade.OK


@pytest.mark.parametrize(
    ("kind", "status"),
    [("ext4", "ok"), ("nfs4", "warning"), ("overlay", "warning"), (None, "skipped")],
)
def test_a_file_system_is_judged_by_its_type(kind: str | None, status: str) -> None:
    assert check_file_system(Path("data"), kind).status == status


@pytest.mark.parametrize(
    ("slow_ms", "status"), [(1.0, "ok"), (25.0, "warning"), (2_500.0, "wrong")]
)
def test_a_slow_disk_is_judged_by_what_the_lease_bears(slow_ms: float, status: str) -> None:
    settings = Settings(lease_ms=2_000, lease_margin_ms=200)
    assert judge_sync([0.5] * 90 + [slow_ms] * 10, settings).status == status


def test_clocks_differ_only_by_what_whole_seconds_prove() -> None:
    """Given a `Date` of ten seconds past, which stands for up to a second more."""
    date = "Thu, 01 Jan 1970 00:00:10 GMT"
    assert difference(date, 9.5, 10.5).certain_s == 0
    assert difference(date, 12.0, 12.5) == Difference(-2.5, -1.0)
    assert difference(date, 12.0, 12.5).certain_s == 1
    assert difference(date, 5.0, 6.0).certain_s == 4


@pytest.mark.parametrize(
    ("version", "status"),
    [("3.9.29", "warning"), ("3.10.8", "ok"), ("4.0.5", "ok"), ("4.2.0", "ok"), ("", "warning")],
)
def test_versions_of_rabbitmq(version: str, status: str) -> None:
    assert check_version("host:5672", version).status == status


def test_versions_of_python() -> None:
    versions = ((3, 11), (3, 13), (3, 15))
    assert [check_python(each).status for each in versions] == ["ok", "ok", "warning"]


def test_nodes_of_a_rabbitmq_cluster_that_are_down_or_slow_to_notice() -> None:
    """Given what the management API shows of two nodes."""
    plugins = ["rabbitmq_management", "rabbitmq_prometheus"]
    up = {"name": "rabbit@one", "running": True, "partitions": [], "enabled_plugins": plugins}
    down = {"name": "rabbit@two", "running": False}

    def judged(*nodes: dict[str, Any]) -> dict[str, str]:
        return {each.check: str(each.status) for each in check_nodes([*nodes], several=True)}

    well = {"plugins": "ok", "broker nodes": "ok", "partition handling": "skipped"}
    assert judged(up | {"net_ticktime": 4}) == well | {"net_ticktime": "ok"}
    assert judged(up | {"net_ticktime": 60}) == well | {"net_ticktime": "warning"}
    assert judged(up, down)["broker nodes"] == "wrong"
    assert judged(up | {"partitions": ["rabbit@two"]})["broker nodes"] == "wrong"
    assert judged(down)["plugins"] == "skipped"
    unknown = check_nodes("no answer", several=True)
    assert {each.status for each in unknown} == {Grade.SKIPPED}


def test_the_worst_finding_counts() -> None:
    findings = [Diagnosis.ok("a", ""), Diagnosis.skipped("b", ""), Diagnosis.warning("c", "", "")]
    assert worst(findings) is Grade.WARNING
    assert worst([*findings, Diagnosis.wrong("d", "", "")]) is Grade.WRONG
    assert worst(findings[:2]) is Grade.OK
