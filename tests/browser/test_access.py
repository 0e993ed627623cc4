"""Users, groups, tokens and sessions in the UI: made, changed, shown once, revoked, logged out."""

import urllib.error
import urllib.request

import pytest
from playwright.sync_api import Locator, Page, expect

from chaos.cluster.local import LocalCluster
from tests.browser.conftest import Open

_LIMIT = pytest.mark.timeout(120, func_only=True)
pytestmark = [pytest.mark.slow, pytest.mark.rabbitmq, _LIMIT]

PASSWORD = "correct horse battery"


def _section(page: Page, title: str) -> Locator:
    return page.locator("section.card", has=page.get_by_role("heading", name=title, exact=True))


def _act(page: Page, name: str, action: str) -> Locator:
    """Choose an action of a row; the dialog that asks about it."""
    page.get_by_role("button", name=f"Actions for {name}", exact=True).click()
    page.get_by_role("menuitem", name=action, exact=True).click()
    return page.get_by_role("dialog")


def _whoami(url: str, token: str) -> int:
    request = urllib.request.Request(f"{url}/v1/whoami")
    request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_access_is_given_shown_and_taken_away(open_window: Open, cluster: LocalCluster) -> None:
    window = open_window(forgiven=("401", "403", "404"))
    page = window.go("access/")
    expect(page.get_by_text("You are the administrator.")).to_be_visible()

    page.get_by_role("button", name="New group").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("devs")
    dialog.get_by_label("Grants").fill("write:/ui/src")
    dialog.get_by_role("button", name="Make group").click()
    expect(_section(page, "Groups")).to_contain_text("write:/ui/src")

    page.get_by_role("button", name="New user").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("alice")
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_label("Groups").fill("none")
    dialog.get_by_role("button", name="Make user").click()
    expect(dialog.get_by_role("alert")).to_contain_text("no group 'none'")
    dialog.get_by_label("Groups").fill("devs")
    dialog.get_by_role("button", name="Make user").click()
    expect(_section(page, "Users")).to_contain_text("group devs")
    dialog = _act(page, "alice", "Grant…")
    dialog.get_by_label("Grants").fill("read:/ui/docs, operate")
    dialog.get_by_role("button", name="Grant").click()
    expect(_section(page, "Users")).to_contain_text("read:/ui/docs, operate, group devs")
    window.check_accessible()

    page.get_by_role("button", name="New token").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("What it is for").fill("ci of the UI")
    dialog.get_by_label("Grants").fill("read:/ui")
    dialog.get_by_role("button", name="Make token").click()
    shown = page.get_by_role("dialog").get_by_label("Token")
    token = shown.input_value()
    assert token.startswith("syn_")
    page.get_by_role("button", name="Done").click()
    expect(_section(page, "API tokens")).to_contain_text("ci of the UI")
    assert token not in page.content()
    assert _whoami(cluster.url, token) == 200
    _act(page, "ci of the UI", "Revoke…").get_by_role("button", name="Revoke").click()
    expect(_section(page, "API tokens")).not_to_contain_text("ci of the UI")
    assert _whoami(cluster.url, token) == 401

    # Given a browser in which alice logs in, then it shows what she may see, until she logs out
    other = open_window(forgiven=("401", "403", "404"))
    login = {"user": "alice", "password": PASSWORD}
    answer = other.page.request.post(f"{cluster.url}/v1/login", data=login)
    assert answer.status == 204
    hers = other.go("access/")
    expect(hers.get_by_text("You are alice.")).to_be_visible()
    expect(_section(hers, "Groups")).to_contain_text("devs")
    expect(_section(hers, "Sessions")).to_contain_text("alice")
    hers.get_by_role("button", name="New user").click()
    dialog = hers.get_by_role("dialog")
    dialog.get_by_label("Name").fill("eve")
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Make user").click()
    expect(dialog.get_by_role("alert")).to_contain_text("'admin'")
    dialog.get_by_role("button", name="Cancel").click()
    hers.get_by_role("button", name="Log out").click()
    # This cluster has no token, so whoever is here and nobody is the administrator.
    expect(hers.get_by_text("You are the administrator.")).to_be_visible()

    _act(page, "alice", "Remove…").get_by_role("button", name="Remove").click()
    expect(_section(page, "Users")).not_to_contain_text("alice")
    _act(page, "devs", "Remove…").get_by_role("button", name="Remove").click()
    expect(_section(page, "Groups")).not_to_contain_text("devs")
    window.check_clean()
    other.check_clean()
