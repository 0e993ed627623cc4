"""The page Cluster shows who is a member, who waits to be one, and a change that is under way."""

import json

import pytest
from playwright.sync_api import Route, expect

from chaos.cluster.local import LocalCluster
from synod.errors import Conflict
from tests.browser.conftest import PHONE, Elsewhere, Open
from tests.long import only_long

_LIMIT = pytest.mark.timeout(120, func_only=True)

pytestmark = [pytest.mark.slow, pytest.mark.rabbitmq, _LIMIT]

_NO_WORKER = "delete window.SharedWorker"


def _change(cluster: LocalCluster, synod: Elsewhere, action: str, name: str) -> None:
    """Ask until the leader begins: the change before is durable only a moment later."""

    def begun() -> bool:
        try:
            synod.change_member(action, name)
        except Conflict as refusal:
            if not refusal.problem["again"]:
                raise
            return False
        return True

    cluster.wait_until(begun, f"{action} {name}")


@only_long
def test_a_node_that_runs_waits_to_be_added_and_is_a_member_then(
    open_window: Open, cluster: LocalCluster, synod: Elsewhere
) -> None:
    newcomer = "proposer-3"
    cluster.wait_whole()
    window = open_window()
    page = window.go("cluster/")
    row = page.locator(".members tr", has_text=newcomer)
    configuration = page.locator(".membership > p")
    expect(configuration).to_contain_text("3 acceptors of version 0; 2 proposers, 2 learners")
    expect(page.locator(".members tr", has_text="store-3")).to_contain_text("member")
    expect(row).to_have_count(0)

    # Given a node that the cluster was not founded with, then the page has the command to type;
    cluster.add_node(newcomer)
    cluster.start_node(newcomer)
    try:
        expect(row).to_contain_text(f"waits to be added: synod add {newcomer}", timeout=30_000)
        window.check_accessible()

        # once it was added, it is a member; and when it is removed, it leaves the picture.
        _change(cluster, synod, "add", newcomer)
        expect(configuration).to_contain_text("3 proposers, 2 learners", timeout=30_000)
        expect(row).not_to_contain_text("synod add")
        _change(cluster, synod, "remove", newcomer)
        expect(row).to_contain_text("may be switched off", timeout=30_000)
        expect(configuration).to_contain_text("2 proposers, 2 learners")
        expect(page.get_by_role("heading", name=newcomer)).to_have_count(0)
    finally:
        cluster.forget_node(newcomer)


def test_a_change_under_way_says_what_it_waits_for(
    open_window: Open, cluster: LocalCluster
) -> None:
    cluster.wait_whole()
    window = open_window(size=PHONE, forgiven=("ERR_FAILED",))
    page = window.page
    page.add_init_script(_NO_WORKER)

    # Given a picture of a replacement that is not over, of a store that copies, of a newcomer
    def amid_a_change(route: Route) -> None:
        picture = json.loads(route.fetch().text())
        acceptors = picture["acceptors"]
        new = [dict(member) for member in acceptors["members"]]
        new[2]["disk"] = "fedcba9876543210"
        acceptors |= {
            "newest": 1,
            "former_needed": True,
            "waits_for": "the acceptors of version 1, which begin with slot 90",
            "change": {"version": 1, "members": new, "slot": 26, "first_slot": 90},
        }
        for member in picture["members"]:
            if member["name"] == "store-2":
                member |= {"standing": "joining", "waits_for": "it to copy what it lacks"}
            if member["name"] == "acceptor-1":
                member |= {
                    "standing": "uncounted",
                    "runs_on": "0123456789abcdef",
                    "command": "synod replace acceptor-1",
                }
        picture["members"].append(
            {
                "name": "store-4",
                "role": "store",
                "standing": "newcomer",
                "disk": None,
                "runs_on": "0123456789abcdef",
                "age_ms": 40,
                "waits_for": "to be added",
                "command": "synod add store-4",
            }
        )
        route.fulfill(json=picture)

    page.route("**/v1/events*", lambda route: route.abort())
    page.route("**/v1/cluster", amid_a_change)
    window.go("cluster/")

    changes = page.get_by_role("list", name="Changes under way")
    expect(changes).to_contain_text("Waits for the acceptors of version 1, which begin with slot")
    expect(changes).to_contain_text("store-2 joins, and waits for it to copy what it lacks")
    configuration = page.locator(".membership > p")
    expect(configuration).to_contain_text("3 acceptors of version 0, to become version 1; 2 prop")
    lost = page.locator(".members tr", has_text="acceptor-1")
    expect(lost).to_contain_text("runs on disk 01234567, which does not vote: synod replace acc")
    newcomer = page.locator(".members tr", has_text="store-4")
    expect(newcomer).to_contain_text("waits to be added: synod add store-4")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
