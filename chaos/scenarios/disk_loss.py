"""`chaos-acceptor-disk-loss`: acceptors lose their disks for good and are replaced under load.

The disks of a majority of the five acceptors go, one after the other, which no cluster outlives
whose lost acceptors are not replaced. Afterwards two of the others are killed, so that nothing is
acknowledged without the votes of all that were replaced.
"""

import asyncio
import time
from typing import Any

from chaos.scenarios.scenario import AFTER_S, WHOLE_PATIENCE_S, Case, Run, RunVoid, Scenario

LOST = ("acceptor-2", "acceptor-5", "acceptor-3")
OTHERS = ("acceptor-1", "acceptor-4")
GAP_MAX_S = 3.0
QUORUM_LIMIT_S = 3.0
_LOOK_S = 0.2


async def _replaced(run: Run) -> None:
    await run.steady()
    await run.trace_all()
    for version, acceptor in enumerate(LOST, start=1):
        at_ns = run.note(f"{acceptor} is killed, and its disk is lost", "fault")
        await run.target.kill(acceptor)
        await run.target.wipe(acceptor)
        await run.target.restart(acceptor)
        await _seen(run, f"{acceptor} runs and does not vote", acceptor, votes=False)
        seconds = await _replace(run, acceptor, version)
        run.find(
            f"the change for {acceptor} ends, and its former disk is not needed any more",
            seconds is not None,
            "it did not end" if seconds is None else f"after {seconds:.2f} s",
        )
        if seconds is None:
            return
        await _seen(run, f"{acceptor} votes", acceptor, votes=True)
        await run.linger(AFTER_S)
        await run.gap(f"{acceptor} was replaced", at_ns, GAP_MAX_S)
    at_ns = run.note(f"{' and '.join(OTHERS)} are killed", "fault")
    await asyncio.gather(*map(run.target.kill, OTHERS))
    await run.back("only acceptors that were replaced are left", at_ns, QUORUM_LIMIT_S)
    await run.linger(AFTER_S)
    await run.mend(*OTHERS)


async def _replace(run: Run, acceptor: str, version: int) -> float | None:
    """Have an acceptor replaced as `synod replace --wait` does; how many seconds that took."""
    since_s = time.monotonic()
    begun = False
    while time.monotonic() < since_s + WHOLE_PATIENCE_S:
        begun = begun or await run.replace(acceptor) == version
        known = (await run.ask())["acceptors"]
        if begun and known["version"] == version and not known["former_needed"]:
            seconds = time.monotonic() - since_s
            run.note(f"{acceptor} is replaced after {seconds:.2f} s", "heal")
            return seconds
        await asyncio.sleep(_LOOK_S)
    return None


async def _seen(run: Run, what: str, acceptor: str, *, votes: bool) -> None:
    """Wait until a gateway has heard of an acceptor and whether it votes. Raises `RunVoid`."""

    def is_so(about: dict[str, Any]) -> bool:
        node = next(node for node in about["nodes"] if node["name"] == acceptor)
        return node.get("votes") is votes and node["age_ms"] < 5_000

    deadline_s = time.monotonic() + WHOLE_PATIENCE_S
    while time.monotonic() < deadline_s:
        if is_so(await run.ask()):
            run.note(what)
            return
        await asyncio.sleep(_LOOK_S)
    raise RunVoid(f"a gateway did not see that {what}")


ACCEPTOR_DISK_LOSS = Scenario(
    "acceptor-disk-loss",
    "three of five acceptors lose their disks, one by one, and are replaced under load",
    (Case("replaced", "then only those that were replaced make a quorum", _replaced),),
)
