"""Quotas over HTTP and on the command line."""

from pathlib import Path

import httpx

from tests.gateway.problems import problem_of
from tests.gateway.test_cli import Shell, synod

__all__ = ["synod"]


async def test_a_quota_is_set_shown_reached_and_removed(client: httpx.AsyncClient) -> None:
    made = await client.put("/v1/quotas/ci", json={"entries": 2, "bytes": 100_000})
    assert (made.status_code, made.json()["path"]) == (200, "ci")
    assert made.headers["synod-request-id"] == made.json()["request"]
    assert (await client.put("/v1/files/ci/a", content=b"x" * 90_000)).status_code == 201

    refused = await client.put("/v1/files/ci/b", content=b"x" * 20_000)
    problem = problem_of(refused)
    assert (problem["status"], problem["type"]) == (507, "urn:synod:problem:over-quota")
    assert problem["path"] == "ci"
    assert "the quota of /ci allows 100000 bytes, of which 90000 are used" in problem["detail"]
    listed = (await client.get("/v1/quotas")).json()["quotas"]
    assert listed == [
        {
            "path": "ci",
            "entries": 2,
            "bytes": 100_000,
            "used_entries": 1,
            "used_bytes": 90_000,
            "slot": made.json()["slot"],
        }
    ]
    assert (await client.get("/v1/quotas/other")).json() == {"quotas": []}
    assert (await client.delete("/v1/quotas/ci")).status_code == 204
    assert (await client.delete("/v1/quotas/ci")).status_code == 404
    assert (await client.put("/v1/files/ci/b", content=b"x" * 20_000)).status_code == 201


async def test_a_move_a_copy_and_a_transaction_into_it(client: httpx.AsyncClient) -> None:
    await client.put("/v1/quotas/q", json={"entries": 0})
    await client.put("/v1/files/f", content=b"1")
    about = {"source": "f", "target": "q/f"}
    steps = {"steps": [{"op": "put", "path": "q/x", "text": "1"}]}
    for url, body in (("move", about), ("copy", about), ("transactions", steps)):
        assert (await client.post(f"/v1/{url}", json=body)).status_code == 507, url
    assert (await client.put("/v1/directories/q/d")).status_code == 507


async def test_wrong_bodies(client: httpx.AsyncClient) -> None:
    for body in ({}, {"entries": -1}, {"bytes": "1"}, {"size": 1}, {"entries": 2**60}):
        assert (await client.put("/v1/quotas/q", json=body)).status_code == 400, body
    assert (await client.put("/v1/quotas/q", content=b"{}")).status_code == 415
    assert (await client.put("/v1/quotas/a//b", json={"entries": 1})).status_code == 400


async def test_the_command(synod: Shell, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 2_000)
    assert (await synod("quota", "set", "/d", "--entries", "1", "--bytes", "3k")).code == 0
    assert (await synod("put", str(tmp_path / "f"), "d/1")).code == 0
    refused = await synod("put", str(tmp_path / "f"), "d/2")
    assert refused.code == 1
    assert "the quota of /d allows" in refused.err
    shown = (await synod("quota", "ls")).out.splitlines()
    assert [line.split() for line in shown[1:]] == [["/d", "1", "1", "2000", "3072"]]
    (quota,) = (await synod("quota", "ls", "d", "--json")).json()
    assert (quota["used_entries"], quota["used_bytes"], quota["bytes"]) == (1, 2_000, 3_072)
    assert (await synod("quota", "set", "d")).code == 2
    assert (await synod("quota", "set", "d", "--bytes", "many")).code == 2
    assert (await synod("quota", "rm", "d")).code == 0
    assert (await synod("quota", "rm", "d")).code == 4
    assert (await synod("put", str(tmp_path / "f"), "d/2")).code == 0
