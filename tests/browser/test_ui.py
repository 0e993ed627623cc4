"""What people do with the UI, in Chromium, on a cluster of processes over RabbitMQ."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Route, expect

from chaos.cluster.local import LocalCluster
from synod.errors import NotFound
from tests.browser.conftest import DESKTOP, PHONE, Elsewhere, Open, Window

# The time of a test, without that of starting the cluster, which has a limit of its own.
_LIMIT = pytest.mark.timeout(120, func_only=True)

pytestmark = [pytest.mark.slow, pytest.mark.rabbitmq, _LIMIT]


_HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def _under_way(cluster: LocalCluster) -> int:
    """The requests that the gateway has not ended, streams among them."""
    text = cluster.ask("/metrics").body
    found = re.search(rb"^paxos_gateway_requests_in_flight (\d+)", text, re.MULTILINE)
    assert found is not None, text[:2000]
    return int(found[1])


def _row(window: Window, name: str) -> Locator:
    return window.page.locator(".row", has=window.page.get_by_text(name, exact=True))


def _act(window: Window, name: str, action: str) -> None:
    """Choose an action of a file's menu."""
    window.page.get_by_role("button", name=f"Actions for {name}", exact=True).click()
    window.page.get_by_role("menuitem", name=action).click()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_is_clean_and_accessible(
    open_window: Open, synod: Elsewhere, size: dict[str, int], dark: bool
) -> None:
    written = synod.put("tour/read me.md", b"# Hello\n", content_type="text/markdown")
    window = open_window(size=size, dark=dark)
    page = window.page
    for address, shows in (
        ("files/tour/", page.get_by_text("read me.md")),
        ("files/tour/read%20me.md", page.locator("textarea")),
        ("cluster/", page.get_by_role("heading", name="store-3")),
        ("requests/", page.locator(".row").first),
        (f"requests/{written.request}", page.locator(".message").first),
        ("log/", page.locator("h1", has_text="Log")),
        ("access/", page.get_by_text("You are the administrator.")),
    ):
        window.go(address)
        expect(shows).to_be_visible()
        window.check_accessible()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"], f"{address} is {width} pixels wide"


def test_a_file_of_20_mb_goes_up_with_progress_and_comes_down_the_same(
    open_window: Open, tmp_path: Path, synod: Elsewhere
) -> None:
    data = os.urandom(20_000_000)
    (tmp_path / "large.bin").write_bytes(data)
    window = open_window()
    page = window.go("files/")
    page.locator("input[type=file]").set_input_files(tmp_path / "large.bin")

    expect(page.locator(".uploads progress")).to_be_visible()
    expect(page.locator(".uploads h3")).to_have_text("1 file uploaded", timeout=60_000)
    page.get_by_role("row", name=re.compile("large.bin")).dblclick()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download large.bin").click()

    got = Path(download.value.path()).read_bytes()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    assert synod.stat("large.bin").size == len(data)


def test_an_upload_that_is_cancelled_writes_nothing(
    open_window: Open, tmp_path: Path, synod: Elsewhere
) -> None:
    (tmp_path / "never.bin").write_bytes(os.urandom(40_000_000))
    window = open_window()
    page = window.go("files/")
    page.locator("input[type=file]").set_input_files(tmp_path / "never.bin")
    page.get_by_role("button", name="Cancel never.bin").click()

    expect(page.locator(".uploads")).to_contain_text("cancelled; nothing was written")
    with pytest.raises(NotFound):
        synod.stat("never.bin")


def test_two_who_edit_see_both_and_one_chooses(open_window: Open, synod: Elsewhere) -> None:
    synod.put("plan.txt", b"one\ntwo\n", content_type="text/plain")
    mine = open_window(forgiven=("status of 412",))
    theirs = open_window()
    for window in (mine, theirs):
        expect(window.go("files/plan.txt").locator("textarea")).to_have_value("one\ntwo\n")
    mine.page.locator("textarea").fill("one\nTWO\n")
    theirs.page.locator("textarea").fill("one\ntwo\nthree\n")
    theirs.page.keyboard.press("Control+s")
    expect(theirs.page.locator(".toast")).to_contain_text("Saved")
    expect(mine.page.locator(".notice")).to_contain_text("Another client saved this file")

    mine.page.get_by_role("button", name="Save").click()

    dialog = mine.page.get_by_role("dialog")
    expect(dialog.locator(".line.theirs")).to_have_text(["two\n", "three\n"])
    expect(dialog.locator(".line.mine")).to_have_text(["TWO\n"])
    mine.check_accessible()
    assert synod.read("plan.txt") == b"one\ntwo\nthree\n"
    dialog.get_by_role("button", name="Replace with mine").click()
    expect(mine.page.locator(".toast")).to_contain_text("Saved")
    assert synod.read("plan.txt") == b"one\nTWO\n"
    expect(theirs.page.locator("textarea")).to_have_value("one\nTWO\n")


def test_files_are_made_moved_copied_and_deleted(open_window: Open, synod: Elsewhere) -> None:
    window = open_window()
    page = window.go("files/")
    expect(page.get_by_role("button", name="Upload")).to_be_visible()
    page.keyboard.press("n")
    page.get_by_role("textbox", name="Name").fill("work")
    page.get_by_role("button", name="Make").click()
    page.get_by_role("link", name="work").click()
    expect(page.get_by_text("This folder is empty")).to_be_visible()
    page.keyboard.press("t")
    page.get_by_role("textbox", name="Name").fill("a.txt")
    page.get_by_role("button", name="Make").click()
    page.locator("textarea").fill("hello")
    page.keyboard.press("Control+s")
    expect(page.locator(".toast")).to_contain_text("Saved")
    page.get_by_role("button", name="Close the file").click()

    _act(window, "a.txt", "Rename")
    page.get_by_role("textbox", name="New name").fill("b.txt")
    page.get_by_role("button", name="Rename").click()
    expect(_row(window, "b.txt")).to_be_visible()
    _act(window, "b.txt", "Copy to")
    page.get_by_role("textbox", name="To").fill("work/deep/c.txt")
    page.get_by_role("button", name="Copy").click()
    expect(_row(window, "deep")).to_be_visible()
    _act(window, "deep", "Move to")
    page.get_by_role("textbox", name="To").fill("work/moved")
    page.get_by_role("button", name="Move").click()
    expect(_row(window, "moved")).to_be_visible()
    expect(_row(window, "deep")).to_have_count(0)
    _act(window, "b.txt", "Delete")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(_row(window, "b.txt")).to_have_count(0)

    assert synod.read("work/moved/c.txt") == b"hello"
    assert [entry.path for entry in synod.list("work")] == ["work/moved"]


def test_what_others_do_appears_by_itself_in_many_windows_at_once(
    open_window: Open, synod: Elsewhere
) -> None:
    """A browser opens six connections to a host: with a stream each, the seventh would hang."""
    synod.put("shared/first", b"1")
    first = open_window()
    windows = [first, *(open_window(beside=first) for _ in range(7))]
    for window in windows:
        expect(window.go("files/shared/").get_by_text("first")).to_be_visible()

    synod.put("shared/second", b"2")
    synod.move("shared/first", "elsewhere/first")

    for window in windows:
        expect(window.page.get_by_text("second")).to_be_visible()
        expect(window.page.get_by_text("first", exact=True)).to_have_count(0)


def test_a_request_just_made_is_a_diagram_that_explains_itself(open_window: Open) -> None:
    window = open_window()
    page = window.go("files/")
    expect(page.get_by_role("button", name="Upload")).to_be_visible()
    page.keyboard.press("t")
    page.get_by_role("textbox", name="Name").fill("traced.txt")
    page.get_by_role("button", name="Make").click()
    expect(page.locator("textarea")).to_be_visible()
    window.go("requests/")
    page.get_by_placeholder("Filter by path or id").fill("traced.txt")
    page.locator(".row", has_text="PUT").first.get_by_role("link").click()

    # An arrow between two moments of the same millisecond is level, so it has no height to be seen.
    expect(page.locator(".message").first).to_be_attached()
    lanes = page.locator(".lane").all_inner_texts()
    assert {"G1", "A1", "A3", "L1", "S1", "S3"} <= {re.sub(r"[a-z-]", "", n.title()) for n in lanes}
    steps = page.locator(".chip").all_text_contents()
    told = " ".join(steps)
    for kind in ("submit", "accept", "accepted", "prepare", "vote", "decision", "result"):
        assert kind in told
    # One message to a group carries it to both roles, and both ends of each arrow are known.
    titles = page.locator(".message title").all_text_contents()
    proposals = [title for title in titles if "paxos.accept," in title]
    assert all("on its way" in proposal for proposal in proposals)
    for hearer in ("acceptor", "learner"):
        assert any(f"to {hearer}-" in proposal for proposal in proposals)
    stages = page.locator(".stage").all_inner_texts()
    assert [stage.split("\n")[0] for stage in stages] == [
        *("queue", "journal", "quorum", "vote", "answer")
    ]
    panel = page.locator(".diagram .panel")
    for title in ("The gateway submits a command to the leader", "Phase 2a", "Phase 2b"):
        page.keyboard.press("ArrowRight")
        expect(panel).to_contain_text(title)
    page.locator(".message.commit .hit").first.click(force=True)
    expect(panel.locator("pre")).to_contain_text('"slot"')
    before = page.locator(".canvas svg").bounding_box()
    page.get_by_role("button", name="Zoom in").click()
    after = page.locator(".canvas svg").bounding_box()
    assert before is not None
    assert after is not None
    assert after["height"] > before["height"] * 1.3
    page.get_by_role("button", name="Step by step").click()
    window.check_accessible()


def test_a_simulators_trace_is_drawn_too(open_window: Open, tmp_path: Path) -> None:
    command = {"session": "s", "sequence": 1, "operation": {"kind": "put_file", "path": "a"}}
    about = {"slot": None, "ballot": None, "epoch": None, "request": "s-1"}

    def line(at: float, to: str, kind: str, arrives: float | None, **more: object) -> str:
        sender, receiver = to.split(">")
        record = {"time_ms": at, "arrives_ms": arrives, "sender": sender, "receiver": receiver}
        state: dict[str, object] = {
            "lost": arrives is None,
            "duplicated": False,
            "message": {},
            **about,
        }
        return json.dumps({**record, "type": kind, **state, **more})

    lines = [
        line(5, "gateway-1>proposer-1", "client.submit", 7, message={"command": command}),
        line(8, "proposer-1>acceptor-1", "paxos.accept", 9, slot=3, request=None,
             message={"value": {"commands": [command]}}),
        line(8, "proposer-1>acceptor-2", "paxos.accept", None, slot=3, request=None),
        json.dumps({"time_ms": 8.5, "event": "store-1 dies"}),
        line(9, "acceptor-1>learner-1", "paxos.accepted", 11, slot=3, request=None),
        line(20, "learner-1>gateway-1", "client.result", 22, slot=3),
    ]  # fmt: skip
    (tmp_path / "trace.jsonl").write_text("\n".join(lines) + "\n")
    window = open_window()
    page = window.go("requests/")
    page.locator("input[type=file]").set_input_files(tmp_path / "trace.jsonl")

    expect(page.locator(".message")).to_have_count(5)
    expect(page.locator(".message.lost")).to_have_count(1)
    expect(page.locator(".note")).to_contain_text("store-1 dies")
    (tmp_path / "no.jsonl").write_text("no")
    window.go("requests/")
    page.locator("input[type=file]").set_input_files(tmp_path / "no.jsonl")
    expect(page.locator(".toast")).to_contain_text("no.jsonl is not a trace")


def test_a_killed_store_is_seen_dead_and_back(open_window: Open, cluster: LocalCluster) -> None:
    window = open_window()
    page = window.go("cluster/")
    store = page.locator(".node", has=page.get_by_text("store-2", exact=True))
    expect(store).to_have_class(re.compile("alive"))
    cluster.kill("store-2")
    try:
        expect(store).to_have_class(re.compile("silent"), timeout=20_000)
        expect(page.locator(".verdict")).to_contain_text("silent")
        expect(page.locator(".history")).to_contain_text("store-2", timeout=20_000)
    finally:
        cluster.start_node("store-2")
    expect(store).to_have_class(re.compile("alive"), timeout=30_000)
    expect(page.locator(".uplot")).to_have_count(2)
    cluster.wait_ready()


def test_a_lost_connection_is_told_and_mended(
    open_window: Open, cluster: LocalCluster, synod: Elsewhere
) -> None:
    window = open_window(forgiven=("ERR_CONNECTION", "ERR_INCOMPLETE", "status of 503"))
    page = window.go("files/")
    expect(page.get_by_role("button", name="Upload")).to_be_visible()
    expect(page.locator("#banner")).to_be_hidden()
    cluster.kill("gateway-1")
    try:
        expect(page.locator("#banner")).to_contain_text("The connection to the gateway is lost")
    finally:
        cluster.start_node("gateway-1")
    cluster.wait_ready()
    expect(page.locator("#banner")).to_be_hidden(timeout=30_000)
    synod.put("after the break", b"1")
    expect(page.get_by_text("after the break")).to_be_visible()


def test_a_window_whose_worker_never_began_begins_it_again(
    open_window: Open, cluster: LocalCluster, synod: Elsewhere
) -> None:
    """The gateway dies after the page's own modules have come and before the worker's have."""
    window = open_window(forgiven=("ERR_CONNECTION", "ERR_INCOMPLETE", "ERR_FAILED", "of 503"))
    held: list[Route] = []
    # The page begins its streams once this first call is answered, in whatever way.
    window.page.route("**/v1/cluster", lambda route: held.append(route))
    with window.page.expect_request("**/v1/cluster"):
        page = window.go("files/")
    expect(page.get_by_role("button", name="Upload")).to_be_visible()
    cluster.kill("gateway-1")
    try:
        held[0].abort()
        expect(page.locator("#banner")).to_contain_text("The connection to the gateway is lost")
    finally:
        cluster.start_node("gateway-1")
    cluster.wait_ready()
    expect(page.locator("#banner")).to_be_hidden(timeout=30_000)
    synod.put("after the worker", b"1")
    expect(page.get_by_text("after the worker")).to_be_visible()


def test_a_folder_of_10_000_files_is_scrolled_filtered_and_light(
    open_window: Open, synod: Elsewhere
) -> None:
    for first in range(0, 10_000, 200):
        synod.transaction(
            {"op": "put", "path": f"many/{number:04}.txt", "text": "x"}
            for number in range(first, first + 200)
        )
    window = open_window()
    page = window.go("files/many/")
    expect(page.get_by_text("10,000 entries")).to_be_visible(timeout=30_000)
    assert page.locator(".row").count() < 60
    page.locator(".list").focus()
    page.keyboard.press("End")
    expect(_row(window, "9999.txt")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("777")
    expect(page.get_by_text("19 matches")).to_be_visible()


def test_leases_ballots_and_votes_are_part_of_the_picture(
    open_window: Open, synod: Elsewhere
) -> None:
    synod.put("watched.txt", b"1")
    window = open_window()
    page = window.go("cluster/")

    leader = page.locator(".node.leader")
    expect(leader).to_contain_text(re.compile(r"leads under \d+\.p\d"))
    expect(leader).to_contain_text(re.compile(r"lease for \d\.\d s"))
    ballot = re.search(r"leads under (\S+?)lease", leader.inner_text().replace("\n", ""))
    assert ballot is not None
    acceptors = page.locator(".node", has_text="acceptor-")
    expect(acceptors).to_have_text([re.compile(f"promised {ballot[1]}")] * 3)
    store = page.locator(".node", has=page.get_by_text("store-1", exact=True))
    expect(store).to_contain_text("read lease")

    window.go("log/")
    newest = page.locator(".row").first
    expect(newest.locator(".dots i")).to_have_count(3)
    newest.click()
    expect(page.locator(".voter.yes").nth(1)).to_be_visible()


def test_a_window_asks_for_nothing_while_its_stream_lives_or_while_it_is_hidden(
    open_window: Open, synod: Elsewhere, cluster: LocalCluster
) -> None:
    """What the pages show comes by the stream; a hidden one lets the stream go, too."""
    window = open_window()
    page = window.go("requests/")
    expect(page.locator(".row").first).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    for number in range(3):
        synod.put(f"streamed-{number}", b"1")
        expect(page.locator(".row", has_text=f"streamed-{number}").first).to_be_visible()

    assert asked == []
    page.evaluate(_HIDE, True)
    # The one that asks is under way itself.
    cluster.wait_until(lambda: _under_way(cluster) == 1, "no stream is open any more")
    synod.put("unseen", b"1")
    page.evaluate(_HIDE, False)
    expect(page.locator(".row", has_text="unseen").first).to_be_visible()
    cluster.wait_until(lambda: _under_way(cluster) == 2, "the stream is open again")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_of_the_api_shows_each_operation_and_tries_it(
    open_window: Open, synod: Elsewhere, dark: bool
) -> None:
    # Given a file, and the page that the UI links to, which may ask this gateway only,
    synod.put("tried/read me.txt", b"tried out\n", content_type="text/plain")
    window = open_window(dark=dark)
    page = window.go("files/")
    page.get_by_role("link", name="API").click()

    # it shows all operations, in the system's theme,
    described = page.request.get(f"{window.url}/openapi.json").json()
    operations = [one for item in described["paths"].values() for one in item.values()]
    expect(page.locator(".opblock")).to_have_count(len(operations))
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 21, 26)" if dark else "rgb(246, 246, 243)")

    # and sends a request as the description says.
    block = page.locator("#operations-files-getFile")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_placeholder("path").fill("tried/read me.txt")
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table .response .response-col_status")).to_have_text(
        "200"
    )
    expect(block.locator(".live-responses-table")).to_contain_text("tried out")
