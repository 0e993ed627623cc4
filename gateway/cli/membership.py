"""The commands members, replace, add and remove: who is a member of the cluster."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.calls import with_synod
from gateway.cli.console import note, out, print_json
from gateway.cli.files import Json, Url
from gateway.cli.tls_options import tls_options
from synod.client import DEFAULT_URL, AsyncClient
from synod.errors import Conflict, Unavailable
from synod.membership import Action, Known, has_begun, version_of, waits_for

_POLL_S = 1.0
_BEGIN_S = 20.0
"""For how long a change that can't begin yet is asked for: new promises take a moment."""

_DISK_CHARS = 8

OFF = "Done: the old machine may be switched off"
ADDED = "Done: it is a member"

Name = Annotated[str, typer.Argument(help="As acceptor-3, store-4.", metavar="NAME")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is over and can't be forgotten.")]
Timeout = Annotated[
    float | None, typer.Option(min=0.0, metavar="S", help="How long to wait at most.")
]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    for command in (members, replace, add, remove):
        cli.command(command.__name__)(tls_options(command))


def members(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """List the members, nodes that wait to be added, and those that were removed."""

    async def work(synod: AsyncClient) -> Known:
        return await synod.members()

    known = with_synod(url, work, silent=json)
    if json:
        print_json(known)
        return
    # Not a table of rich's, which would break a long line in two: a member is a line, for grep.
    line = f"{{:12}}  {{:8}}  {{:{_DISK_CHARS}}}  {{}}"
    out().print(line.format("member", "role", "disk", "state"))
    for member in known["members"]:
        style = "" if member["standing"] == "member" and not member["waits_for"] else "yellow"
        disk = (member["disk"] or member["runs_on"] or "")[:_DISK_CHARS]
        text = line.format(member["name"], member["role"], disk, member_state(member))
        out().print(Text(text, style=style))
    out().print()
    for name, value in member_rows(known):
        out().print(Text(f"{name}: {value}"))


def replace(
    name: Name,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Put the disk on which a member runs now, empty at its start, in the place of the one that it
    lost.
    """
    _change("replace", name, url, timeout, wait=wait, json=json)


def add(
    name: Name,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Make a node a member that runs on an empty folder: synod node NAME."""
    _change("add", name, url, timeout, wait=wait, json=json)


def remove(
    name: Name,
    wait: Wait = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Make a member none any more; its process ends by itself."""
    _change("remove", name, url, timeout, wait=wait, json=json)


def _change(
    action: Action, name: str, url: str, timeout_s: float | None, *, wait: bool, json: bool
) -> None:
    say: Callable[[str], None] = (lambda text: None) if json else (lambda text: note(text))

    async def work(synod: AsyncClient) -> Known:
        change = _Change(synod, action, name, say, timeout_s)
        await change.begin()
        return await change.end() if wait else await synod.members()

    known = with_synod(url, work, silent=json)
    if json:
        print_json(known)
    elif wait:
        out().print(ADDED if action == "add" else OFF)
    else:
        out().print("It has begun. `synod members` shows what it waits for.")


class _Change:
    """One change, and what the user was told of it."""

    def __init__(
        self,
        synod: AsyncClient,
        action: Action,
        name: str,
        say: Callable[[str], None],
        timeout_s: float | None,
    ) -> None:
        self._synod = synod
        self._action: Action = action
        self._name = name
        self._say = say
        self._told = ""
        self._timeout_s = timeout_s
        self._began_s = self._now_s
        self._before: Known | None = None
        self._version = 0

    async def begin(self) -> None:
        """Have the leader begin. Raises `SynodError`."""
        if self._before is None:
            self._before = await self._synod.members()
        end_s = self._now_s + (_BEGIN_S if self._timeout_s is None else self._timeout_s)
        while True:
            try:
                self._version = await self._synod.change_member(self._action, self._name)
                return
            except Conflict as refusal:
                known = await self._synod.members()
                if has_begun(self._before, known, self._action, self._name):
                    self._version = version_of(known, self._name)  # The answer was lost.
                    return
                if not refusal.problem.get("again") or self._now_s >= end_s:
                    raise
                self._tell(f"not yet: {refusal}")
            await asyncio.sleep(_POLL_S)

    async def end(self) -> Known:
        """Wait until the change is over and can't be forgotten; the members then. Raises
        `SynodError`.
        """
        seen_s = self._now_s
        while True:
            known = await self._synod.members()
            missing = "its first slot"
            if version_of(known, self._name) >= self._version:
                seen_s = self._now_s
                asked_ms_ago = (self._now_s - self._began_s) * 1000
                missing = waits_for(known, self._action, self._name, asked_ms_ago)
                if not missing:
                    return known
                self._tell(f"waits for {missing}")
            elif self._now_s - seen_s > _BEGIN_S:
                # The leader that began may have died before it was chosen.
                seen_s = self._now_s
                await self.begin()
            if self._timeout_s is not None and self._now_s > self._began_s + self._timeout_s:
                raise Unavailable(
                    f"not over after {self._timeout_s:g} s: it waits for {missing}. It goes on by "
                    "itself; synod members shows what it waits for"
                )
            await asyncio.sleep(_POLL_S)

    @property
    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._say(f"synod: {text}")


def member_state(member: dict[str, Any]) -> str:
    """What a node is, and what it waits for, in one line."""
    waits = f"; waits for {member['waits_for']}" if member["waits_for"] else ""
    match member["standing"]:
        case "newcomer":
            return f"no member, waits for: {member['command']}"
        case "uncounted":
            other = (member["runs_on"] or "")[:_DISK_CHARS]
            return f"does not vote on disk {other}, waits for: {member['command']}"
        case "removed":
            return "removed: it may be switched off"
        case standing:
            return f"{standing}{waits}"


def member_rows(known: Known) -> list[tuple[str, str]]:
    """What `synod status` says of the members: the configuration, and each change."""
    acceptors, roster = known["acceptors"], known["roster"]
    if acceptors is None or roster is None:
        return []
    names = ", ".join(member["name"] for member in acceptors["members"])
    counts = Counter(
        member["role"]
        for member in known["members"]
        if member["standing"] in ("member", "joining") and member["role"] != "acceptor"
    )
    others = ", ".join(f"{count} {role}s" for role, count in counts.items())
    rows = [
        ("acceptors", f"version {acceptors['version']}: {names}"),
        ("roster", f"version {roster['version']}: {others}"),
    ]
    if (change := acceptors["change"]) is not None:
        rows.append(("change", f"to version {change['version']}: {_difference(acceptors)}"))
    rows += [
        ("change", f"{what} wait for {group['waits_for']}")
        for what, group in (("the acceptors", acceptors), ("the other roles", roster))
        if group["waits_for"]
    ]
    rows += [
        ("change", f"{member['name']} is {member_state(member)}")
        for member in known["members"]
        if member["standing"] in ("joining", "leaving", "newcomer")
    ]
    return rows


def _difference(acceptors: Known) -> str:
    """How the acceptors of a change differ from the former ones."""
    former = {member["name"]: member["disk"] for member in acceptors["members"]}
    new = {member["name"]: member["disk"] for member in acceptors["change"]["members"]}
    parts = (
        ("with another disk for", [one for one in new if former.get(one, new[one]) != new[one]]),
        ("with", [name for name in new if name not in former]),
        ("without", [name for name in former if name not in new]),
    )
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts if names)
