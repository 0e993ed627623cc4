"""Real files are stored and read bit for bit, and memory does not grow with them."""

import filecmp
import hashlib
import random
import shutil
import sysconfig
from pathlib import Path

import pytest

from chaos.cluster.local import LocalCluster
from chaos.cluster.processes import Daemon, Watchdog, memory_kib, wait_until
from chaos.cluster.rabbitmq import free_ports
from tests.acceptance.conftest import MIB, Figure, Length
from tests.acceptance.shell import clean_environment, synod, synod_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GROWTH_KIB_MAX = 64 * 1024


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, length: Length) -> Path:
    """Give a folder of real files: the standard library's sources, or a part of them."""
    library = Path(sysconfig.get_path("stdlib"))
    folder = tmp_path_factory.mktemp("sources") / "library"
    found = sorted(
        path
        for path in library.rglob("*.py")
        if not {"site-packages", "__pycache__"} & set(path.parts) and path.is_file()
    )
    step = length.pick(max(1, len(found) // 100), 1)
    for path in found[::step]:
        copy = folder / path.relative_to(library)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    (folder / "empty.txt").touch()
    (folder / "a folder").mkdir()
    (folder / "a folder" / "naïve – ½ 100%.bin").write_bytes(bytes(range(256)) * 100)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Return the digest of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.rabbitmq
def test_a_folder_of_real_files(
    cluster: LocalCluster, sources: Path, tmp_path: Path, figure: Figure
) -> None:
    # Given a folder of real files,
    environment = clean_environment(url=cluster.url)
    before = contents(sources)
    assert len(before) > 100

    # when it is put in and got out again by another process,
    put = synod(
        "put", "-r", sources, "real", environment=environment, folder=tmp_path, timeout_s=300
    )
    assert (put.code, put.err.count("Traceback")) == (0, 0), put
    got = synod(
        "get", "-r", "real", "copy", environment=environment, folder=tmp_path, timeout_s=300
    )
    assert (got.code, got.err.count("Traceback")) == (0, 0), got

    # then it is the same bit for bit.
    assert contents(tmp_path / "copy") == before
    figure(f"{len(before)} files; {put.err.strip()}; {got.err.strip()}")


def test_a_cluster_in_one_process_survives_its_killing(
    sources: Path, tmp_path: Path, figure: Figure
) -> None:
    # Given a cluster in one process that holds a folder of real files,
    port = free_ports(1)[0]
    environment = clean_environment(
        data=str(tmp_path / "data"), port=str(port), max_file_bytes=str(MIB)
    )
    client = clean_environment(url=f"http://127.0.0.1:{port}")
    up = Daemon(
        "up",
        [*synod_command(), "up"],
        environment,
        folder=tmp_path,
        log=tmp_path / "up.log",
        record=tmp_path / "up.json",
    )
    watchdog = Watchdog()
    try:
        up.start(group=watchdog.group)
        _wait_announced(up, 1)
        put = synod(
            "put", "-r", sources, "real", environment=client, folder=tmp_path, timeout_s=300
        )
        assert (put.code, put.err.count("Traceback")) == (0, 0), put

        # when the process is killed and started again on the same data folder,
        up.kill()
        up.start(group=watchdog.group)
        _wait_announced(up, 2)

        # then the files come back bit for bit,
        got = synod("get", "-r", "real", "copy", environment=client, folder=tmp_path, timeout_s=300)
        assert (got.code, got.err.count("Traceback")) == (0, 0), got
        assert contents(tmp_path / "copy") == contents(sources)

        # and a file over the limit is refused, whether its size is known before or not.
        (tmp_path / "large").write_bytes(bytes(MIB + 1))
        refused = synod("put", "large", "large", environment=client, folder=tmp_path)
        assert (refused.code, str(MIB) in refused.err) == (1, True), refused
        with (tmp_path / "large").open("rb") as stream:
            piped = synod(
                "put", "-", "large", environment=client, folder=tmp_path, standard_input=stream
            )
        assert (piped.code, str(MIB) in piped.err) == (1, True), piped
        assert "Traceback" not in refused.err + piped.err
        assert synod("stat", "large", environment=client, folder=tmp_path).code == 4
        figure(f"{put.err.strip()}; {got.err.strip()}")
    finally:
        up.kill()
        watchdog.close()


def _wait_announced(up: Daemon, times: int) -> None:
    wait_until(
        lambda: not up.runs or up.log.read_text().count("Synod is ready") == times,
        "synod up is ready",
        timeout_s=60,
    )
    assert up.runs, up.last_words()


@pytest.mark.rabbitmq
def test_memory_does_not_grow_with_a_large_file(
    cluster: LocalCluster,
    idle_peaks_kib: dict[str, int],
    tmp_path: Path,
    length: Length,
    figure: Figure,
) -> None:
    # Given a large file, and processes whose peak memory is counted from now on,
    size = length.pick(64, 300) * MIB + 12_345
    large = tmp_path / "large"
    with large.open("wb") as stream:
        noise = random.Random(7)
        for _ in range(size // MIB):
            stream.write(noise.randbytes(MIB))
        stream.write(noise.randbytes(size % MIB))
    for name in cluster.nodes:
        _forget_peak(cluster.process_id(name))
    environment = clean_environment(url=cluster.url)
    idle = synod("stat", "large", environment=environment, folder=tmp_path)

    # when it is put in and got out again,
    put = synod("put", large, "large", environment=environment, folder=tmp_path, timeout_s=300)
    assert put.code == 0, put
    got = synod("get", "large", "copy", environment=environment, folder=tmp_path, timeout_s=300)
    assert got.code == 0, got

    # then it is the same bit for bit,
    assert (tmp_path / "copy").stat().st_size == size
    assert filecmp.cmp(large, tmp_path / "copy", shallow=False)

    # and no process's peak is far above its idle one.
    growth_kib = {name: cluster.vm_hwm_kib(name) - idle_peaks_kib[name] for name in cluster.nodes}
    growth_kib["synod put"] = put.peak_kib - idle.peak_kib
    growth_kib["synod get"] = got.peak_kib - idle.peak_kib
    worst = max(growth_kib, key=lambda name: growth_kib[name])
    figure(
        f"{size // MIB} MiB: {worst} grew most, by {growth_kib[worst] / 1024:.1f} MiB; gateway "
        f"{growth_kib['gateway-1'] / 1024:.1f}, put {growth_kib['synod put'] / 1024:.1f}, get "
        f"{growth_kib['synod get'] / 1024:.1f}"
    )
    assert growth_kib[worst] <= GROWTH_KIB_MAX, growth_kib


def _forget_peak(process_id: int | None) -> None:
    """Make the present memory the peak so far (proc(5), clear_refs)."""
    assert process_id is not None
    Path(f"/proc/{process_id}/clear_refs").write_text("5")
    assert memory_kib(process_id) <= memory_kib(process_id, "VmRSS") + 1024
