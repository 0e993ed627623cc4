"""`chaos-acceptor-disk-loss`: acceptors lose their disks for good and are replaced under load.

The disks of a majority of the five acceptors go, one after the other, which no cluster outlives
whose lost acceptors are not replaced. Afterwards two of the others are killed, so that nothing is
acknowledged without the votes of all that were replaced.
"""

import asyncio

from chaos.scenarios.member_changes import GAP_MAX_S, changed, lose_disk, seen
from chaos.scenarios.scenario import AFTER_S, Case, Run, Scenario

LOST = ("acceptor-2", "acceptor-5", "acceptor-3")
OTHERS = ("acceptor-1", "acceptor-4")
QUORUM_LIMIT_S = 3.0


async def _replaced(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    for acceptor in LOST:
        at_ns = await lose_disk(run, acceptor)
        await seen(
            run,
            f"{acceptor} does not vote",
            acceptor,
            lambda known: known["standing"] == "uncounted",
        )
        if not await changed(run, "replace", acceptor):
            return
        await run.linger(AFTER_S)
        await run.gap(f"{acceptor} was replaced", at_ns, GAP_MAX_S)
    at_ns = run.note(f"{' and '.join(OTHERS)} are killed", "fault")
    await asyncio.gather(*map(run.target.kill, OTHERS))
    await run.back("only acceptors that were replaced are left", at_ns, QUORUM_LIMIT_S)
    await run.linger(AFTER_S)
    await run.mend(*OTHERS)


ACCEPTOR_DISK_LOSS = Scenario(
    "acceptor-disk-loss",
    "three of five acceptors lose their disks, one by one, and are replaced under load",
    (Case("replaced", "then only those that were replaced make a quorum", _replaced),),
)
