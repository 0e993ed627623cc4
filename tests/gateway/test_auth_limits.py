"""Wrong tokens are limited for each address; the right one is accepted from any."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from pydantic import SecretStr

from gateway.http.app import GatewayApp
from gateway.http.auth_limits import ADDRESSES_MAX, ALL_BURST, BURST, EACH_S, TokenAttemptLimits
from gateway.settings import Settings
from tests.gateway.conftest import serving
from tests.gateway.fake import FakeCluster
from tests.gateway.problems import problem_of
from tests.gateway.raw import connected, head

TOKEN = "a-token-of-the-tests-0123"


class _Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def _wrong(guesses: TokenAttemptLimits, address: str, *numbers: int) -> None:
    for number in numbers:
        guesses.wrong(address, b"%d" % number)


def test_an_address_has_some_guesses_and_gets_more_with_time() -> None:
    clock = _Clock()
    guesses = TokenAttemptLimits(clock)
    _wrong(guesses, "10.0.0.1", *range(BURST - 1))
    assert guesses.wait_s("10.0.0.1") == 0
    _wrong(guesses, "10.0.0.1", BURST)
    assert guesses.wait_s("10.0.0.1") == EACH_S
    assert guesses.wait_s("10.0.0.2") == 0

    clock.now_s += EACH_S
    assert guesses.wait_s("10.0.0.1") == 0
    _wrong(guesses, "10.0.0.1", BURST + 1)
    assert guesses.wait_s("10.0.0.1") == EACH_S


def test_the_same_wrong_token_again_is_no_guess() -> None:
    guesses = TokenAttemptLimits(_Clock())
    _wrong(guesses, "10.0.0.1", *[1, 2] * 500)
    assert guesses.wait_s("10.0.0.1") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_what_one_client_may_choose_counts_as_one_address(one: str, other: str, same: bool) -> None:
    guesses = TokenAttemptLimits(_Clock())
    _wrong(guesses, one, *range(BURST))
    assert (guesses.wait_s(other) > 0) == same


def test_many_addresses_together_have_a_limit_that_spares_those_who_never_guessed() -> None:
    guesses = TokenAttemptLimits(_Clock())
    for number in range(ALL_BURST):
        _wrong(guesses, f"10.0.{number // 250}.{number % 250}", number)
    assert guesses.wait_s("10.0.0.7") > 0
    assert guesses.wait_s("10.9.9.9") == 0


def test_the_table_is_bounded() -> None:
    guesses = TokenAttemptLimits(_Clock())
    for number in range(ADDRESSES_MAX + 100):
        _wrong(guesses, f"10.{number // 60_000}.{number // 250}.{number % 250}", number)
    assert len(guesses._tried) == ADDRESSES_MAX


@pytest.fixture
async def port(cluster: FakeCluster) -> AsyncIterator[int]:
    """A real server, so that clients have addresses."""
    async with serving(cluster, Settings(token=SecretStr(TOKEN))) as port:
        yield port


@pytest.mark.parametrize("way", ["bearer", "JSON", "form"])
async def test_guesses_are_refused_and_the_right_token_gets_in_from_any_address(
    port: int, way: str
) -> None:
    def guess(token: str) -> bytes:
        if way == "bearer":
            return head("GET", "/v1/cluster", f"authorization: Bearer {token}")
        kind, body = ("json", f'{{"token": "{token}"}}')
        if way == "form":
            kind, body = ("x-www-form-urlencoded", f"token={token}")
        headers = (f"content-type: application/{kind}", f"content-length: {len(body)}")
        return head("POST", "/v1/login", *headers) + body.encode()

    async with connected(port) as client, connected(port, "127.0.0.2") as other:
        said = []
        for number in range(BURST + 5):
            client.send(guess(f"wrong-{number}"))
            said.append(await client.answer())
        client.send(guess(TOKEN))
        let_in_too = await client.answer()
        other.send(guess(TOKEN))
        let_in = await other.answer()

        assert [answer.status for answer in said] == [401] * BURST + [429] * 5
        assert 0 < int(said[-1].headers["retry-after"]) <= EACH_S
        assert (said[-1].problem == "too-many-requests") == (way != "form")
        assert let_in_too.status in (200, 204, 303)
        assert let_in.status in (200, 204, 303)


async def test_a_browser_that_is_in_stays_in_while_its_address_guesses(
    cluster: FakeCluster,
) -> None:
    transport = httpx.ASGITransport(GatewayApp(cluster, Settings(token=SecretStr(TOKEN))))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        assert (await browser.post("/v1/login", json={"token": TOKEN})).status_code == 204
        for number in range(BURST):
            await browser.post("/v1/login", json={"token": f"wrong-{number}"})
        answer = await browser.post("/v1/login", json={"token": "wrong-again"})
        assert problem_of(answer)["type"] == "urn:synod:problem:too-many-requests"
        assert (await browser.get("/v1/cluster")).status_code == 200


async def test_logins_that_do_not_come_to_an_end_take_no_more_than_some_places(port: int) -> None:
    waiting = head("POST", "/v1/login", "content-type: application/json", "content-length: 27")
    async with AsyncExitStack() as stack:
        for _ in range(8):
            one = await stack.enter_async_context(connected(port))
            one.send(waiting + b"{")
        refused = await stack.enter_async_context(connected(port))
        other = await stack.enter_async_context(connected(port, "127.0.0.2"))

        refused.send(waiting)
        answer = await refused.answer()
        other.send(waiting + b'{"token": "wrong" }        ')

        assert (answer.status, answer.problem) == (429, "too-many-requests")
        assert answer.headers["retry-after"] == "1"
        assert (await other.answer()).status == 401
