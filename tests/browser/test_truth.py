"""The UI says what is so, and what is not known: of the cluster, a list, a write, an edit."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Route, expect

from chaos.cluster.local import LocalCluster
from synod.errors import NotFound, SynodError
from tests.browser.conftest import Elsewhere, Open

_LIMIT = pytest.mark.timeout(120, func_only=True)

pytestmark = [pytest.mark.slow, pytest.mark.rabbitmq, _LIMIT]

_NO_WORKER = "delete window.SharedWorker"
"""Then the page opens its streams itself, where a test can stand between."""

_BROKEN = ("ERR_FAILED", "ERR_CONNECTION", "ERR_INCOMPLETE", "ERR_EMPTY", "status of")


def _problem(route: Route, status: int, kind: str, detail: str) -> None:
    body = {"type": f"urn:synod:problem:{kind}", "title": "t", "status": status, "detail": detail}
    route.fulfill(status=status, content_type="application/problem+json", body=json.dumps(body))


def test_a_list_is_loading_or_failed_or_empty_and_says_which(
    open_window: Open, synod: Elsewhere
) -> None:
    synod.put("truth/lists/full/a.txt", b"1")
    synod.put("truth/lists/empty/a.txt", b"1")
    synod.delete("truth/lists/empty/a.txt")
    window = open_window(forgiven=_BROKEN)
    page = window.go("files/truth/lists/empty/")
    expect(page.get_by_text("This folder is empty")).to_be_visible()

    # Given a listing that has not come yet, after one that was complete
    held: list[Route] = []
    answer: list[Callable[[Route], object]] = [held.append]
    page.route("**/v1/directories/truth/lists/full*", lambda route: answer[-1](route))
    with page.expect_request("**/v1/directories/truth/lists/full*"):
        page.evaluate("location.hash = '#/files/truth/lists/full/'")
    expect(page.get_by_text("Loading…")).to_be_visible()
    expect(page.get_by_text("This folder is empty")).to_have_count(0)

    # When it fails, then the reason stands in its place
    answer.append(
        lambda route: _problem(route, 503, "unavailable", "Not answered: no store could.")
    )
    held[0].abort()
    expect(page.get_by_text("This folder could not be loaded")).to_be_visible()
    expect(page.get_by_text("Not answered: no store could.")).to_be_visible()
    expect(page.get_by_text("This folder is empty")).to_have_count(0)

    answer.append(lambda route: route.continue_())
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".row", has_text="a.txt")).to_be_visible()


def test_an_edit_is_guarded_at_a_click_at_back_and_at_a_reload(
    open_window: Open, synod: Elsewhere
) -> None:
    synod.put("truth/edits/plan.txt", b"one\n", content_type="text/plain")
    window = open_window()
    page = window.go("files/truth/edits/")
    page.get_by_role("link", name="plan.txt").click()
    expect(page.locator("textarea")).to_have_value("one\n")
    page.locator("textarea").fill("one\nmine\n")
    dialog = page.get_by_role("dialog")

    leave: Callable[[], object]
    for leave in (
        lambda: page.get_by_role("link", name="Cluster").click(),
        lambda: page.get_by_role("link", name="Files", exact=True).first.click(),
        lambda: page.evaluate("history.back()"),
        lambda: page.get_by_role("button", name="Close the file").click(),
    ):
        leave()
        expect(dialog).to_contain_text("“plan.txt” has unsaved changes")
        dialog.get_by_role("button", name="Keep editing").click()
        expect(dialog).to_have_count(0)
        expect(page.locator("textarea")).to_have_value("one\nmine\n")
        assert page.url.endswith("#/files/truth/edits/plan.txt")

    # A reload is asked about by the browser, and loses nothing either.
    asked: list[str] = []

    def accept(question: Dialog) -> None:
        asked.append(question.type)
        question.accept()

    page.once("dialog", accept)
    page.reload()
    assert asked == ["beforeunload"]
    expect(page.locator("textarea")).to_have_value("one\nmine\n")
    expect(page.locator(".notice")).to_contain_text("was restored")
    assert synod.read("truth/edits/plan.txt") == b"one\n"

    page.get_by_role("link", name="Cluster").click()
    dialog.get_by_role("button", name="Discard changes").click()
    expect(page.locator("h1")).to_have_text("Cluster")
    window.go("files/truth/edits/plan.txt")
    expect(page.locator("textarea")).to_have_value("one\n")


def test_a_save_without_an_answer_is_asked_again_under_its_key(
    open_window: Open, synod: Elsewhere
) -> None:
    synod.put("truth/kept/plan.txt", b"one\n", content_type="text/plain")
    window = open_window(forgiven=_BROKEN)
    page = window.go("files/truth/kept/plan.txt")
    expect(page.locator("textarea")).to_have_value("one\n")
    keys: list[str] = []

    def applied_and_lost(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()
        route.abort()

    # Given a save that is done, and whose answers are lost for as long as the page tries
    page.route("**/v1/files/truth/kept/plan.txt", applied_and_lost)
    page.locator("textarea").fill("one\ntwo\n")
    page.keyboard.press("Control+s")
    expect(page.locator(".notice")).to_contain_text("It is not known whether this was done")
    expect(page.locator(".notice")).not_to_contain_text("Not saved")
    assert len(set(keys)) == 1

    page.unroute("**/v1/files/truth/kept/plan.txt")
    page.locator(".notice").get_by_role("button", name="Retry").click()

    expect(page.locator(".toast").last).to_contain_text("Saved")
    assert synod.read("truth/kept/plan.txt") == b"one\ntwo\n"
    assert synod.stat("truth/kept/plan.txt").version == 2


def test_a_login_that_ended_is_asked_for_and_the_edit_is_saved_after_it(
    open_window: Open, synod: Elsewhere
) -> None:
    synod.put("truth/guarded/plan.txt", b"one\n", content_type="text/plain")
    window = open_window(forgiven=_BROKEN)
    page = window.go("files/truth/guarded/plan.txt")
    expect(page.locator("textarea")).to_have_value("one\n")
    is_in = False

    def guarded(route: Route) -> None:
        if is_in:
            route.continue_()
        else:
            _problem(route, 401, "unauthorized", "Authorization: Bearer …")

    def log_in(route: Route) -> None:
        nonlocal is_in
        is_in = True
        route.fulfill(status=204)

    page.route("**/v1/files/truth/guarded/plan.txt", guarded)
    page.route("**/v1/login", log_in)
    page.locator("textarea").fill("two\n")
    page.keyboard.press("Control+s")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("requires a token")

    # Who has no token at hand loses nothing, and reads no header's name.
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator(".notice")).to_contain_text("Not saved: you are not logged in")
    expect(page.locator("#banner")).to_contain_text("You are no longer logged in")
    expect(page.locator("textarea")).to_have_value("two\n")

    page.locator("#banner").get_by_role("button", name="Log in").click()
    dialog.get_by_label("Token").fill("the token of this cluster")
    dialog.get_by_role("button", name="Log in").click()
    expect(page.locator("#banner")).to_be_hidden()
    page.locator(".notice").get_by_role("button", name="Try again").click()
    expect(page.locator(".toast").last).to_contain_text("Saved")
    assert synod.read("truth/guarded/plan.txt") == b"two\n"


def test_a_cancelled_upload_that_was_written_says_so_and_one_that_was_not_never_is(
    open_window: Open, cluster: LocalCluster, synod: Elsewhere, tmp_path: Path
) -> None:
    for name in ("came.bin", "never.bin"):
        (tmp_path / name).write_bytes(b"x" * 2_000)
    window = open_window(forgiven=_BROKEN)
    page = window.go("files/truth/cancels/")
    expect(page.get_by_role("button", name="Upload")).to_be_visible()

    # Given an upload that has come in whole, and that can't be decided yet
    for name in ("learner-1", "learner-2"):
        cluster.pause(name)
    try:
        page.locator("input[type=file]").set_input_files(tmp_path / "came.bin")
        row = page.locator(".uploads li", has_text="came.bin")
        expect(row).to_contain_text("sent; waiting for the cluster")
        page.get_by_role("button", name="Cancel truth/cancels/came.bin").click()
        expect(row).to_contain_text("cancelled; checking whether it was written")
    finally:
        for name in ("learner-1", "learner-2"):
            cluster.resume(name)
    expect(row).to_contain_text("written before it could be cancelled")
    expect(row).not_to_contain_text("nothing was written")
    assert synod.read("truth/cancels/came.bin") == b"x" * 2_000

    # Given one that has not reached the gateway
    held: list[Route] = []
    page.route("**/v1/files/truth/cancels/*", lambda route: held.append(route))
    page.locator("input[type=file]").set_input_files(tmp_path / "never.bin")
    cancel = page.get_by_role("button", name="Cancel truth/cancels/never.bin")
    expect(cancel).to_be_visible()
    with page.expect_request("**/v1/transactions"):
        cancel.click()
    row = page.locator(".uploads li", has_text="never.bin")
    expect(row).to_contain_text("cancelled; nothing was written")
    # A copy that was still on its way comes too late: the key is spent.
    key = held[0].request.headers["idempotency-key"]
    with pytest.raises(SynodError, match="was used for another request"):
        synod.put("truth/cancels/never.bin", b"x" * 2_000, key=key)
    with pytest.raises(NotFound):
        synod.stat("truth/cancels/never.bin")


def test_a_picture_is_called_well_only_while_it_is_fresh_and_the_lease_runs(
    open_window: Open, cluster: LocalCluster
) -> None:
    cluster.wait_whole()
    window = open_window(forgiven=_BROKEN)
    page = window.page
    page.add_init_script(_NO_WORKER)
    window.go("cluster/")
    verdict = page.locator(".verdict")
    expect(verdict).to_have_text("All is well")
    expect(verdict).to_have_class(re.compile("good"))

    # Given a gateway that is suspended: nothing breaks, and nothing comes
    cluster.pause("gateway-1")
    try:
        expect(verdict).to_have_text("Unknown")
        expect(verdict).not_to_have_class(re.compile("good"))
        expect(page.locator(".reasons")).to_contain_text(re.compile(r"At .*: All is well"))
        expect(page.locator("#banner")).to_contain_text("The connection to the gateway is lost")
    finally:
        cluster.resume("gateway-1")
    expect(page.locator("#banner")).to_be_hidden(timeout=30_000)
    expect(verdict).to_have_text("All is well", timeout=30_000)

    # Given proposers that are suspended: the lease that was told of runs out
    for name in ("proposer-1", "proposer-2"):
        cluster.pause(name)
    try:
        expect(verdict).to_contain_text("Accepts no writes")
        expect(verdict).not_to_have_class(re.compile("good"))
        expect(page.locator(".reasons")).to_contain_text(re.compile("lapsed|no proposer leads"))
    finally:
        for name in ("proposer-1", "proposer-2"):
            cluster.resume(name)
    expect(verdict).to_have_text("All is well", timeout=30_000)


def test_a_write_under_way_is_no_read_and_a_vote_that_was_not_seen_is_none(
    open_window: Open, synod: Elsewhere
) -> None:
    written = synod.put("truth/votes.txt", b"1")
    window = open_window()
    page = window.page
    row = {
        "number": 10**9, "request": None, "method": "PUT", "route": "files", "status": None,
        "path": "/v1/files/slow.txt", "started_us": 1_795_460_525_626_627, "duration_us": 1,
    }  # fmt: skip
    page.route("**/v1/requests?*", lambda route: route.fulfill(json={"requests": [row]}))
    window.go("requests/")
    # What the stream sends comes through the shared worker, past this route, without this row.
    page.get_by_role("button", name="Follow").click()
    running = page.locator(".row", has_text="slow.txt")
    expect(running).to_contain_text("write, no id yet")
    expect(running).not_to_contain_text("read")

    window.go(f"requests/{written.request}")
    says = page.locator("text.caption")
    expect(says).to_have_text(["a majority accepted: chosen", "all votes received: decided"])

    def without_a_vote(route: Route) -> None:
        trace = route.fetch().json()
        trace["events"] = [
            event
            for event in trace["events"]
            if not (event["type"] == "txn.vote" and event["from"] == "store-2")
        ]
        route.fulfill(json=trace)

    page.route("**/v1/traces/*", without_a_vote)
    page.reload()
    expect(says).to_have_text(
        ["a majority accepted: chosen", "decided; vote of store-2: not recorded"]
    )


def test_a_page_that_can_not_be_loaded_and_a_newer_one_are_told_to_people(
    open_window: Open, cluster: LocalCluster
) -> None:
    window = open_window(forgiven=_BROKEN)
    page = window.go("files/")
    expect(page.get_by_role("button", name="Upload")).to_be_visible()
    page.route("**/static/js/log.js", lambda route: route.abort())
    page.get_by_role("link", name="Log").click()
    expect(page.get_by_role("heading", name="The page Log could not be loaded")).to_be_visible()
    expect(page.get_by_role("button", name="Reload")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("Failed to fetch")

    # Given a gateway that comes back with another version of the page
    page.route(
        re.compile(r"/$"),
        lambda route: route.fulfill(status=200, headers={"synod-ui": "another"}, body=""),
    )
    cluster.kill("gateway-1")
    expect(page.locator("#banner")).to_contain_text("lost")
    cluster.start_node("gateway-1")
    cluster.wait_ready()
    expect(page.locator("#banner")).to_contain_text("another version of this page", timeout=30_000)


def test_rabbitmq_is_named_when_it_is_the_reason(open_window: Open, cluster: LocalCluster) -> None:
    window = open_window(forgiven=_BROKEN)
    page = window.go("cluster/")
    expect(page.locator(".verdict")).to_be_visible()
    broker = cluster.brokers["rabbitmq"]
    broker.kill()
    try:
        expect(page.locator(".reasons")).to_contain_text("no connection to RabbitMQ")
        expect(page.locator(".verdict")).to_contain_text("Accepts no writes")
        expect(page.locator("#banner")).to_contain_text("no connection to RabbitMQ")
        assert b"no connection to RabbitMQ" in cluster.ask("/readyz").body
    finally:
        broker.start()
    cluster.wait_ready()
    expect(page.locator("#banner")).to_be_hidden(timeout=30_000)
