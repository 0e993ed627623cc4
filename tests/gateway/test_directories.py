"""`/v1/directories/…`."""

import httpx

from tests.gateway.problems import problem_of


async def test_a_directory_is_made_listed_and_removed(client: httpx.AsyncClient) -> None:
    made = await client.put("/v1/directories/a/b")
    assert (made.status_code, made.headers["location"]) == (201, "/v1/directories/a/b")
    assert made.headers["synod-request-id"]
    assert (await client.put("/v1/directories/a/b")).status_code == 200
    await client.put("/v1/files/a/c.txt", content=b"x", headers={"synod-executable": "1"})

    page = (await client.get("/v1/directories/a")).json()

    assert page["path"] == "a"
    assert page["next"] is None
    directory, file = page["entries"]
    assert (directory["kind"], directory["name"], directory["path"]) == ("directory", "b", "a/b")
    assert (file["kind"], file["name"], file["size"], file["executable"]) == (
        "file",
        "c.txt",
        1,
        True,
    )
    not_empty = await client.delete("/v1/directories/a")
    assert (not_empty.status_code, problem_of(not_empty)["type"].rpartition(":")[2]) == (
        409,
        "not-empty",
    )
    assert (await client.delete("/v1/directories/a/b")).status_code == 204
    assert (await client.delete("/v1/directories/a?recursive=true")).status_code == 204
    assert (await client.get("/v1/directories/a")).status_code == 404
    assert (await client.delete("/v1/directories/a")).status_code == 404


async def test_the_root_is_always_there(client: httpx.AsyncClient) -> None:
    for url in ("/v1/directories/", "/v1/directories"):
        assert (await client.get(url)).json()["entries"] == []
    assert (await client.put("/v1/directories/")).status_code == 200
    assert (await client.delete("/v1/directories/?recursive=true")).status_code == 409


async def test_pages(client: httpx.AsyncClient) -> None:
    names = [f"file {number}&?" for number in range(7)]
    for name in names:
        await client.put(f"/v1/files/d/{name.replace('?', '%3F')}", content=b"")

    seen: list[str] = []
    url = "/v1/directories/d?limit=3"
    pages = 0
    while url:
        answer = await client.get(url)
        seen += [entry["name"] for entry in answer.json()["entries"]]
        pages += 1
        following = answer.links.get("next", {}).get("url", "")
        assert bool(following) == (answer.json()["next"] is not None)
        url = following

    assert (seen, pages) == (names, 3)


async def test_what_is_refused(client: httpx.AsyncClient) -> None:
    await client.put("/v1/files/f", content=b"x")

    for answer in (
        await client.get("/v1/directories/f"),
        await client.put("/v1/directories/f"),
        await client.put("/v1/directories/f/below"),
        await client.delete("/v1/directories/f"),
    ):
        assert problem_of(answer)["type"] == "urn:synod:problem:conflict"
    for query in ("limit=0", "limit=1001", "limit=many"):
        assert problem_of(await client.get(f"/v1/directories/?{query}"))["status"] == 400
    assert (await client.delete("/v1/directories/f?recursive=yes")).status_code == 400
    guarded = await client.delete("/v1/directories/f", headers={"if-match": "*"})
    assert problem_of(guarded)["type"].endswith(":invalid-header")
    assert (await client.put("/v1/directories/a/")).status_code == 400
