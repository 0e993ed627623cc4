"""No request that a gateway accepts becomes a command that a leader would refuse."""

import json
from typing import Any

import httpx
import pytest

from actors.paging import COMMAND_BYTES_MAX
from actors.values import Command
from gateway.http.transactions import BODY_BYTES_MAX
from tests.gateway.fake import FakeCluster


def _filled(step: dict[str, Any]) -> bytes:
    """A transaction with as many of these steps as its body may have."""
    each = json.dumps(step, ensure_ascii=False).encode()
    count = min(1_000, (BODY_BYTES_MAX - 20) // (len(each) + 1))
    return b'{"steps":[%b]}' % b",".join([each] * count)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(
            {"op": "copy", "source": "a", "target": "/".join(['"' * 250] * 7)}, id="names"
        ),
        pytest.param({"op": "put", "path": "a", "text": "x" * 16_000}, id="texts"),
        pytest.param({"op": "put", "path": "a", "text": ""}, id="steps"),
        pytest.param(
            {"op": "put", "path": "a", "text": "", "meta": {f"{n:x}": "" for n in range(700)}},
            id="meta",
        ),
        pytest.param({"op": "delete", "path": "a", "if_match": ["1-1"] * 250_000}, id="tags"),
    ],
)
async def test_the_largest_bodies_make_commands_that_a_message_carries(
    client: httpx.AsyncClient, cluster: FakeCluster, step: dict[str, Any]
) -> None:
    await client.post(
        "/v1/transactions",
        content=_filled(step),
        headers={"content-type": "application/json"},
    )

    (submitted,) = cluster.submitted()
    command = Command(
        session="s" * 128,
        sequence=1,
        acknowledged=-1,
        reply_to="gateway-1",
        operation=submitted.operation,
    )
    assert 100_000 < command.size_bytes <= COMMAND_BYTES_MAX
