"""The checks of this host: Python, limits, memory, and the data folder with its disk."""

import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryFile

from broker.journal_folder import PRIVATE_FOLDER
from broker.maintenance import MaintenanceOptions
from gateway.doctor.findings import Diagnosis
from gateway.http.connections import ConnectionLimits
from gateway.settings import Settings

TRIED_PYTHONS = ((3, 11), (3, 13))
"""The oldest and the newest version that the tests run on."""

SYNC_SLOW_MS = 20.0
"""A write waits for commits of acceptors, stores and learners one after another; on a solid state
disk each takes 0.3 ms.
"""

SYNC_DURATION_S = 1.0
_SYNC_BYTES = 4096
_SYNC_FILE_BYTES = 256 * _SYNC_BYTES
"""Then the file is written from its beginning again, as a journal's write-ahead log is: where syncs
are fast, a second of them would fill the disk.
"""
_MIB = 1024 * 1024
_PROCESS_BYTES = 64 * _MIB
"""What a node's process takes with an empty tree."""

_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gfs2"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone"}
)
_VOLATILE_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "overlay"})


def check_host(settings: Settings) -> Iterator[Diagnosis]:
    """All checks of this host, in the order of their output."""
    yield check_python(sys.version_info[:2])
    yield check_descriptors(settings)
    yield check_memory(settings)
    folder = _existing(settings.data)
    yield check_permissions(settings.data)
    yield check_file_system(settings.data, _file_system_of(folder))
    yield check_free_space(settings)
    yield check_sync(settings)


def check_python(version: tuple[int, int]) -> Diagnosis:
    """Whether Synod was tested on that version."""
    oldest, newest = TRIED_PYTHONS
    found = ".".join(str(number) for number in version)
    if oldest <= version <= newest:
        return Diagnosis.ok("python", found)
    tested = " to ".join(".".join(map(str, each)) for each in TRIED_PYTHONS)
    return Diagnosis.warning("python", f"{found} is not tested", f"Use Python {tested}.")


def check_descriptors(settings: Settings) -> Diagnosis:
    """Whether a gateway may hold as many connections as it would take."""
    limits = ConnectionLimits.of_process(body_s=settings.body_timeout_ms / 1000)
    wanted, granted = ConnectionLimits().connections, limits.connections
    if granted >= wanted:
        return Diagnosis.ok("file descriptors", f"enough for {granted} connections of clients")
    return Diagnosis.warning(
        "file descriptors",
        f"enough for {granted} of the {wanted} connections that a gateway takes",
        "Raise the limit: `ulimit -n 4096`, `LimitNOFILE=4096` in systemd, `ulimits` in compose.",
    )


def check_memory(settings: Settings) -> Diagnosis:
    """Whether the memory suffices for transfers, and for the largest tree that a node may hold."""
    embedded = settings.broker.startswith("memory:")
    wanted = _PROCESS_BYTES + 2 * settings.upload_memory_bytes
    if not embedded:
        wanted += settings.tree_bytes
    available = _available_memory_bytes()
    if available is None:
        return Diagnosis.skipped("memory", "this system does not tell how much is available")
    found = f"{available // _MIB} MiB are available, and a node takes {wanted // _MIB} MiB"
    found += ", plus its tree" if embedded else " with the largest tree of tree_bytes"
    if available >= wanted:
        return Diagnosis.ok("memory", found)
    return Diagnosis.warning(
        "memory", found, "Add memory, or set smaller tree_bytes and upload_memory_bytes."
    )


def check_permissions(data: Path) -> Diagnosis:
    """Whether this user, and no other, may write to the data folder."""
    check, folder = "data folder", _existing(data)
    if not folder.is_dir():
        return Diagnosis.wrong(check, f"{folder} is no folder", "Name another one with `data`.")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Diagnosis.wrong(
            check,
            f"the user {os.geteuid()} may not write to {folder}",
            f"`chown` it to the user that runs the node, with mode {PRIVATE_FOLDER:o}.",
        )
    if folder != data.absolute():
        return Diagnosis.ok(check, f"{data} does not exist yet; {folder} is writable")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        return Diagnosis.warning(
            check,
            f"other users may replace what is in {folder} (mode {mode:o})",
            f"`chmod {PRIVATE_FOLDER:o} {folder}`",
        )
    return Diagnosis.ok(check, f"{folder} is writable (mode {mode:o})")


def check_file_system(data: Path, kind: str | None) -> Diagnosis:
    """Whether the file system keeps what was committed, and locks."""
    check = "file system"
    if kind is None:
        return Diagnosis.skipped(check, "this system does not tell the file system's type")
    if kind in _NETWORK_FILE_SYSTEMS:
        return Diagnosis.warning(
            check,
            f"{data} is on {kind}, a network file system, whose locks and syncs SQLite can't trust",
            "Put the data folder on a disk of this host.",
        )
    if kind in _VOLATILE_FILE_SYSTEMS:
        return Diagnosis.warning(
            check,
            f"{data} is on {kind}, which does not outlive this host or container",
            "Put the data folder on a disk, in a container on a volume: an acceptor that loses its "
            "folder can't take part any more.",
        )
    return Diagnosis.ok(check, kind)


def check_free_space(settings: Settings) -> Diagnosis:
    """Whether a store would have more room than its reserve."""
    check = "free disk"
    limits = MaintenanceOptions.of_role("store", settings.disk_reserve_bytes)
    figures = os.statvfs(_existing(settings.data))
    free = figures.f_bavail * figures.f_frsize
    reserve_mib = limits.disk_reserve_bytes // _MIB
    found = f"{free // _MIB} MiB are free, and a store reserves {reserve_mib} MiB"
    change = "Free space, or set `data` to a larger disk."
    if limits.is_low(free, 0, was_low=False):
        return Diagnosis.wrong(check, f"{found}: it would count as full, and refuse writes", change)
    if limits.is_scarce(free):
        return Diagnosis.warning(check, found, change)
    return Diagnosis.ok(check, found)


def check_sync(settings: Settings) -> Diagnosis:
    """How long the disk takes to make a commit durable."""
    try:
        samples = measure_sync(_existing(settings.data))
    except OSError as error:
        return Diagnosis.wrong(
            "disk sync",
            f"a file in {_existing(settings.data)} can't be written: {error.strerror}",
            "Free space, or set `data` to a folder on a disk that can be written.",
        )
    return judge_sync(samples, settings)


def measure_sync(folder: Path, duration_s: float = SYNC_DURATION_S) -> list[float]:
    """The times in milliseconds of syncs of one page each, over `duration_s`. Raises `OSError`."""
    samples: list[float] = []
    page = os.urandom(_SYNC_BYTES)
    # Unnamed: it leaves nothing behind.
    with TemporaryFile(dir=folder, buffering=0) as file:
        descriptor = file.fileno()
        until = time.perf_counter() + duration_s
        while (began := time.perf_counter()) < until or len(samples) < 2:
            os.pwrite(descriptor, page, len(samples) * _SYNC_BYTES % _SYNC_FILE_BYTES)
            os.fdatasync(descriptor)
            samples.append((time.perf_counter() - began) * 1000)
    return samples


def judge_sync(samples: Sequence[float], settings: Settings) -> Diagnosis:
    """What syncs of these durations, two or more, in milliseconds mean for a node."""
    percentiles = quantiles(samples, n=100, method="inclusive")
    median, p99 = percentiles[49], percentiles[98]
    # What is left of a lease if one heartbeat of the leader is lost, as `Options` requires.
    bearable = settings.lease_ms - settings.lease_margin_ms - 2 * settings.leader_heartbeat_ms
    found = f"p50 {median:.1f} ms, p99 {p99:.1f} ms of {len(samples)} syncs of 4 KiB"
    if p99 >= bearable:
        return Diagnosis.wrong(
            "disk sync",
            f"{found}: the lease of {settings.lease_ms} ms bears {bearable} ms, so leaders would "
            "lose it",
            "Use a faster disk, or raise lease_ms (of a new cluster only).",
        )
    if p99 >= SYNC_SLOW_MS:
        return Diagnosis.warning(
            "disk sync",
            f"{found}: a write waits for several of them, one after another (the lease of "
            f"{settings.lease_ms} ms bears {bearable} ms)",
            "Use a local disk with a write cache that survives a power cut, or share it with less.",
        )
    return Diagnosis.ok("disk sync", found)


def _existing(data: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    folder = data.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _file_system_of(folder: Path) -> str | None:
    """The type of the file system that holds `folder`, as Linux names it."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = None
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        if mount.split()[2] == wanted:
            found = rest.split()[0]
    return found


def _available_memory_bytes() -> int | None:
    """What this system, or this container, still has. None if it does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, size = line.partition(":")
            if name == "MemAvailable":
                return min(int(size.split()[0]) * 1024, _container_limit_bytes())
    except OSError:
        return None
    return None


def _container_limit_bytes() -> int:
    """The memory limit of this process's cgroup, or a number beyond any memory."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = Path(path).read_text().strip()
        except OSError:
            continue
        if limit.isdecimal():
            return int(limit)
    return sys.maxsize
