"""Reads the audit of a cluster and checks its chain, at one learner or at all of them.

A learner makes the hashes of the records that it keeps anew when it shows them. So records that
were changed on its disk show where the chain goes on from them, and a comparison with another
learner shows which one is the first.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from synod.audit import Chain, ChainBroken
from synod.client import AsyncClient
from synod.errors import Unavailable

_PAGE = 1_000


async def check_cluster(synod: AsyncClient, learner: str, heads: Sequence[str]) -> Chain:
    """The records of a learner, or of all that answer, checked. `heads` are hashes that the chain
    must have. Raises `ChainBroken`, `SynodError`.
    """
    if learner:
        return await _check_learner(synod, learner, heads)
    nodes = (await synod.cluster())["nodes"]
    names = sorted(node["name"] for node in nodes if node["name"].startswith("learner-"))
    whole: dict[str, Chain] = {}
    broken: dict[str, ChainBroken] = {}
    silent: Unavailable | None = None
    for name in names:
        # Each one's chain goes on from the end of the one before.
        former = [chain.head for chain in whole.values()][-1:]
        try:
            whole[name] = await _check_learner(synod, name, [*heads, *former])
        except ChainBroken as error:
            broken[name] = error
        except Unavailable as error:
            silent = error
    if broken:
        name, wrong = next(iter(broken.items()))
        raise await _named(synod, name, wrong, [one for one in names if one != name])
    if not whole and silent is not None:
        raise silent
    return list(whole.values())[-1] if whole else await _check_learner(synod, "", heads)


async def pages(synod: AsyncClient, after: int, learner: str) -> AsyncIterator[dict[str, Any]]:
    """The records after number `after`. Raises `ChainBroken` if some are hidden, `SynodError`."""
    asked: dict[str, str | int] = {"learner": learner} if learner else {}
    while True:
        page = await synod.audit(after=after, order="oldest", limit=_PAGE, **asked)
        if page["records"] and page["previous"] is None:
            raise ChainBroken("the caller may not read all records, so they can't be checked")
        yield page
        after = page["through"]
        if not page["more"]:
            return


async def _check_learner(synod: AsyncClient, learner: str, heads: Sequence[str]) -> Chain:
    chain: Chain | None = None
    wanted = set(heads)
    page: dict[str, Any] = {}
    async for page in pages(synod, 0, learner):
        for record in page["records"]:
            if chain is None:
                chain = Chain(record["number"], page["previous"])
                wanted.discard(chain.head)
            chain.add(record)
            wanted.discard(chain.head)
    if chain is None:
        chain = Chain(page["count"] + 1, page["head"])
        wanted.discard(chain.head)
    else:
        chain.end(page["count"], page["head"])
    if wanted:
        raise ChainBroken(f"the chain does not have the hash {min(wanted)}")
    return chain


async def _named(
    synod: AsyncClient, name: str, error: ChainBroken, others: Sequence[str]
) -> ChainBroken:
    """The error of a learner's chain, with the first record in which another one differs."""
    for other in others:
        try:
            number = await _first_difference(synod, name, other)
        except (ChainBroken, Unavailable):
            continue
        if number is not None:
            text = f"record {number} is another one at {name} than at {other}; at {name}: {error}"
            return ChainBroken(text, number)
    return ChainBroken(f"at {name}: {error}", error.number)


async def _first_difference(synod: AsyncClient, one: str, other: str) -> int | None:
    after = 0
    while True:
        asked: dict[str, str | int] = {"after": after, "order": "oldest", "limit": _PAGE}
        here = await synod.audit(learner=one, **asked)
        there = await synod.audit(learner=other, **asked)
        known = {record["number"]: _bare(record) for record in there["records"]}
        for record in here["records"]:
            number = record["number"]
            if number in known and known[number] != _bare(record):
                return int(number)
        after = min(here["through"], there["through"])
        if not (here["more"] and there["more"]):
            return None


def _bare(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "hash"}
