"""The journals that a restored cluster begins with, without running it."""

from pathlib import Path
from typing import Any

import pytest

from actors.effects import Record
from actors.founding import FOUNDED, HELD
from actors.options import Options, role_of
from actors.paxos.acceptor import TRUNCATED
from actors.principals import CreateGroup, CreateLogin, CreateToken, CreateUser, Grant, Principal
from actors.state.namespace import Namespace
from actors.state.policy_rows import POLICY_ROWS
from actors.values import Batch, Command, Genesis
from broker.journal import Journal
from gateway.backup.folder import BackupFolder, BackupRefused
from gateway.backup.restore import Restored, restore
from tests.gateway.backups import DATA, NAMES, former, make_backup

WALL_MS = 1_800_000_000_000


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    make_backup(tmp_path / "backup")
    return tmp_path / "backup"


def read_back(data: Path, name: str) -> tuple[Journal, dict[str, bytes]]:
    """A member's journal before its first start, and its rows."""
    journal = Journal.open(data / name, name, "test")
    return journal, {record.key: record.value or b"" for record in journal.records()}


@pytest.mark.parametrize(("now_ms", "slot"), [(WALL_MS, WALL_MS), (1, 4)], ids=["wall", "backup"])
def test_every_member_begins_with_the_same_cluster_and_no_former_slot(
    backup: Path, tmp_path: Path, now_ms: int, slot: int
) -> None:
    """Given a backup of slot 4, then the log continues above it and the wall clock; acceptors
    hold the genesis and vote on nothing of before; replicas hold the state, stores its contents,
    and the view names their new disks in an epoch that none of their starts coordinates.
    """
    options = Options(acceptors=3, proposers=2, learners=2, stores=2)
    data = tmp_path / "data"

    done = restore(backup, data, options, "test", now_ms=now_ms)

    assert done == Restored(BackupFolder(backup).manifest(), done.cluster, slot, options.members)
    assert {path.name for path in data.iterdir()} == set(options.members)
    expected, found = former(), {name: read_back(data, name) for name in options.members}
    disks = {name: journal.identity.disk for name, (journal, _) in found.items()}
    (genesis,) = {Genesis.model_validate_json(rows[FOUNDED]) for _, rows in found.values()}
    assert genesis.cluster == done.cluster != "former"
    assert {member.name: member.disk for member in genesis.members} == disks
    view = genesis.view
    assert (view.epoch, view.coordinator) == (8, "learner-1")
    assert view.coordinator_disk == disks["learner-1"]
    assert view.coordinator_incarnation < found["learner-1"][0].identity.incarnation
    assert [(member.name, member.disk, member.added_slot) for member in view.stores] == [
        (name, disks[name], 0) for name in ("store-1", "store-2")
    ]
    expected.applied, expected.view, expected.view_slot = slot, view, slot
    state_rows = {key: row.to_json() for key, row in expected.rows()}
    for name, (journal, rows) in found.items():
        del rows[FOUNDED]
        role = role_of(name)
        if role == "acceptor":
            assert Genesis.model_validate_json(rows.pop(HELD)) == genesis
            assert rows == {TRUNCATED: b"%d" % (slot + 1)}
        else:
            assert rows == ({} if role == "proposer" else state_rows)
        assert journal.blob_names() == (sorted(NAMES) if role == "store" else [])
        found_data = tuple(journal.read_blob(chunk) for chunk in NAMES)
        assert found_data == (DATA if role == "store" else (None, None))
        journal.close()


def test_invalid_metadata_is_restored_as_the_old_cluster_showed_it(tmp_path: Path) -> None:
    """Given a backup of files that an older version took, with a type that breaks a header, a time
    beyond all dates and a name of meta that no header has, then the new cluster keeps what the
    answers of the old one showed, and all else as it was.
    """
    state, options = former(), Options(acceptors=3, proposers=2, learners=2, stores=2)
    odd: dict[str, dict[str, Any]] = {
        "a": {"content_type": "text/plain\r\na: b", "meta": (("b", "\x00"), ("c d", "1"))},
        "b": {"modified_ms": 10**20, "meta": (("owner", "Zo\xc3\xab"),)},
    }
    for path, changes in odd.items():
        state.entries[path] = state.entries[path].model_copy(update=changes)
    make_backup(tmp_path / "backup", state)

    done = restore(tmp_path / "backup", tmp_path / "data", options, "test", now_ms=WALL_MS)

    assert done.mended == ("a", "b")
    first = {"content_type": "application/octet-stream", "meta": (("b", "\xef\xbf\xbd"),)}
    expected = dict(state.entries)
    expected["a"] = state.entries["a"].model_copy(update=first)
    expected["b"] = state.entries["b"].model_copy(update={"modified_ms": 253_402_300_799_999})
    journal, rows = read_back(tmp_path / "data", "store-1")
    journal.close()
    found = {key: row for key, row in rows.items() if key.startswith("entry/")}
    assert found == {f"entry/{path}": entry.to_json() for path, entry in expected.items()}


def test_users_groups_and_tokens_are_restored_with_their_rights_and_sessions_are_not(
    tmp_path: Path,
) -> None:
    """Given people and programs that had rights, then they have them in the new cluster, in a group
    that is the same one, and none of them is logged in there.
    """
    reads, writes = Grant(role="read", path="a"), Grant(role="write", path="b")
    state = former(
        CreateGroup(group="devs", grants=(writes,)),
        CreateUser(user="alice", password="$argon2id$x", grants=(reads,), groups=("devs",)),
        CreateToken(token="t", sha256="0" * 64, label="ci", grants=(reads,), groups=("devs",)),
        a_login("l1", user="alice", checked="6-0"),
        a_login("l2", token="t", checked="7"),
    )
    known = Principal(token="l1", policy_slot=8, user="alice"), Principal(token="l2", policy_slot=9)
    assert state.applied == 9
    before = state.log_time_ms
    assert all(state.policy.rights_of(one, before) for one in known)
    make_backup(tmp_path / "backup", state)
    options = Options(acceptors=3, proposers=2, learners=2, stores=2)

    restore(tmp_path / "backup", tmp_path / "data", options, "test", now_ms=WALL_MS)

    expected = {key: row.to_json() for key, row in state.rows() if key.split("/")[0] in POLICY_ROWS}
    del expected["login/l1"], expected["login/l2"]
    assert len(expected) == 3
    states = []
    for name in options.names("learner") + options.names("store"):
        states.append(new := Namespace(options.constants))
        journal, rows = read_back(tmp_path / "data", name)
        journal.close()
        for key, row in rows.items():
            new.restore(Record(key, row))
        found = {key: row for key, row in rows.items() if key.split("/")[0] in POLICY_ROWS}
        assert found == expected

    new = states[-1]
    new.restored()
    now_ms = new.log_time_ms
    assert [new.policy.rights_of(one, now_ms) for one in known] == [None, None]
    rights = new.policy.rights_of(Principal(token="t", policy_slot=WALL_MS), now_ms)
    assert rights is not None
    assert rights.grants == new.policy.grants_of(new.policy.users["alice"]) == (reads, writes)
    # Whoever has the password logs in: what was set in the old cluster is in force.
    command = Command(
        session="s",
        sequence=99,
        acknowledged=-1,
        reply_to="gateway-1",
        operation=a_login("l1", user="alice", checked="6-0"),
    )
    (outcome,) = new.apply(WALL_MS + 1, Batch(commands=(command,)), ())
    assert outcome.status == "done"
    assert new.policy.rights_of(known[0], now_ms) is None
    again = Principal(token="l1", policy_slot=WALL_MS + 1, user="alice")
    assert new.policy.rights_of(again, now_ms) is not None


def a_login(
    id: str, *, user: str | None = None, token: str | None = None, checked: str
) -> CreateLogin:
    return CreateLogin(
        login=id,
        sha256="0" * 64,
        label="",
        user=user,
        token=token,
        checked=checked,
        idle_ms=10**7,
        expires_after_ms=10**8,
    )


def test_nothing_is_restored_over_what_is_there(backup: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Journal.open(data / "store-1", "store-1", "test") as journal:
        journal.commit([Record("a", b"1")])

    with pytest.raises(BackupRefused, match="is not empty"):
        restore(backup, data, Options(), "test")

    assert [path.name for path in data.iterdir()] == ["store-1"]
    with Journal.open(data / "store-1", "store-1", "test") as journal:
        assert list(journal.records()) == [Record("a", b"1")]


def test_what_an_interrupted_restore_left_is_removed_first(backup: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    left = data / ".restoring" / "store-9"
    left.mkdir(parents=True)
    (left / "journal.db").write_bytes(b"half")

    restore(backup, data, Options(), "test", now_ms=WALL_MS)

    assert {path.name for path in data.iterdir()} == set(Options().members)
