"""The command replace: another disk in the place of an acceptor's that is lost."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import typer

from gateway.cli.calls import with_synod
from gateway.cli.console import note, out, print_json
from gateway.cli.files import Json, Url
from gateway.cli.tls_options import tls_options
from synod.client import DEFAULT_URL, AsyncClient
from synod.errors import Conflict, Unavailable

_POLL_S = 1.0
_BEGIN_S = 20.0
"""For how long a change that can't begin yet is asked for: new promises take a moment."""

DONE = "Done: the old machine may be switched off"


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("replace")(tls_options(replace))


def replace(
    name: Annotated[str, typer.Argument(help="As acceptor-3; it runs on an empty folder.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until the old disk is not needed.")] = False,
    url: Url = DEFAULT_URL,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, metavar="S", help="How long to wait at most.")
    ] = None,
    json: Json = False,
) -> None:
    """Put the disk on which an acceptor runs now in the place of the one that it lost."""
    say: Callable[[str], None] = (lambda text: None) if json else (lambda text: note(text))

    async def work(synod: AsyncClient) -> dict[str, Any]:
        change = _Replacement(synod, name, say, timeout)
        await change.begin()
        return await change.end() if wait else await synod.cluster()

    answer = with_synod(url, work, silent=json)
    if json:
        print_json(answer["acceptors"])
    elif wait:
        out().print(DONE)
    else:
        out().print("It has begun. `synod status` shows when the old machine is not needed.")


class _Replacement:
    """One replacement, and what the user was told of it."""

    def __init__(
        self, synod: AsyncClient, name: str, say: Callable[[str], None], timeout_s: float | None
    ) -> None:
        self._synod = synod
        self._name = name
        self._say = say
        self._told = ""
        self._timeout_s = timeout_s
        self._began_s = self._now_s
        self._disk: str | None = None
        self._version = 0

    async def begin(self) -> None:
        """Have the leader begin. Raises `SynodError`."""
        self._disk = _disk_of((await self._synod.cluster())["acceptors"], self._name)
        end_s = self._now_s + (_BEGIN_S if self._timeout_s is None else self._timeout_s)
        while True:
            try:
                self._version = await self._synod.replace_acceptor(self._name)
                return
            except Conflict as refusal:
                known = (await self._synod.cluster())["acceptors"]
                if known and self._disk not in (None, _disk_of(known, self._name)):
                    self._version = _newest(known)["version"]  # It was begun; the answer was lost.
                    return
                if not refusal.problem.get("again") or self._now_s >= end_s:
                    raise
                self._tell(f"not yet: {refusal}")
            await asyncio.sleep(_POLL_S)

    async def end(self) -> dict[str, Any]:
        """Wait until the former disk is not needed any more; the cluster's state then. Raises
        `SynodError`.
        """
        seen_s = self._now_s
        while True:
            answer = await self._synod.cluster()
            known = answer["acceptors"]
            if _newest(known)["version"] >= self._version:
                seen_s = self._now_s
                if not known["former_needed"]:
                    return answer
                self._tell(_progress(known))
            elif self._now_s - seen_s > _BEGIN_S:
                # The leader that began may have died before it was chosen.
                seen_s = self._now_s
                await self.begin()
            if self._timeout_s is not None and self._now_s > self._began_s + self._timeout_s:
                raise Unavailable(
                    f"not over after {self._timeout_s:g} s: {_progress(known)}. It goes on by "
                    "itself; synod status shows when the old machine is not needed"
                )
            await asyncio.sleep(_POLL_S)

    @property
    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._say(f"synod: {text}")


def _newest(known: dict[str, Any]) -> dict[str, Any]:
    """The acceptors that were named last."""
    newest: dict[str, Any] = known["change"] or known
    return newest


def _disk_of(known: dict[str, Any] | None, name: str) -> str | None:
    members = _newest(known)["members"] if known else ()
    return next((member["disk"] for member in members if member["name"] == name), None)


def _progress(known: dict[str, Any]) -> str:
    change, durable = known["change"], known["durable_through"]
    if change is None:
        return f"the end of the change, slot {known['settled_slot']}, is not durable everywhere yet"
    return (
        f"the acceptors of version {change['version']} begin with slot {change['first_slot']}; "
        f"everything is durable through slot {durable}"
    )


def acceptor_rows(known: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What `synod status` says of the acceptors."""
    if known is None:
        return []
    names = ", ".join(member["name"] for member in known["members"])
    rows = [("acceptors", f"version {known['version']}: {names}")]
    change = known["change"]
    if change is not None:
        now = {(member["name"], member["disk"]) for member in known["members"]}
        new = [m["name"] for m in change["members"] if (m["name"], m["disk"]) not in now]
        what = f"to version {change['version']}, with another disk for {', '.join(new)}"
        rows.append(("change", f"{what}: {_progress(known)}"))
    elif known["former_needed"]:
        rows.append(("change", f"has ended, and the old disk is still needed: {_progress(known)}"))
    return rows
