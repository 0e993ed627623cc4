"""Commands for several paths at once, and for watching: mv, cp, txn, watch."""

import base64
import json
import signal
from collections.abc import Awaitable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.calls import with_synod
from gateway.cli.console import note, out, print_json, print_json_line, size_text, standard_input
from gateway.cli.files import Json, Timeout, Url, remote, target_path, written_json
from gateway.cli.signals import Ended
from gateway.cli.tls_options import tls_options
from gateway.cli.transfer import guess_type
from observability.safe_text import visible
from synod.client import DEFAULT_URL, AsyncClient
from synod.entries import Change, Written
from synod.errors import Conflict
from synod.paths import checked_path

SourcePath = Annotated[str, typer.Argument(help="A file or a directory in Synod.")]
TargetPath = Annotated[str, typer.Argument(help="A path in Synod; one ending in / is a directory.")]
Force = Annotated[
    bool, typer.Option("--force", "-f", help="Replace a file, or an empty directory, at TARGET.")
]
IfMatch = Annotated[str | None, typer.Option(help="Only if the source has this ETag.")]
Key = Annotated[str | None, typer.Option("--idempotency-key", help="The same key is applied once.")]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (("mv", mv), ("cp", cp), ("txn", txn), ("watch", watch)):
        cli.command(name)(tls_options(command))


def mv(
    source: SourcePath,
    target: TargetPath,
    force: Force = False,
    if_match: IfMatch = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Move or rename a file, or a directory with all below it, as one change."""
    _transfer("move", source, target, force, if_match, key, url, timeout, json)


def cp(
    source: SourcePath,
    target: TargetPath,
    force: Force = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="For the habit: directories go whole anyway.")
    ] = False,
    if_match: IfMatch = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Copy a file, or a directory with all below it, as one change; no bytes are moved."""
    _transfer("copy", source, target, force, if_match, key, url, timeout, json)


def _transfer(
    verb: str,
    source: str,
    target: str,
    force: bool,
    if_match: str | None,
    key: str | None,
    url: str,
    timeout: float | None,
    as_json: bool,
) -> None:
    from_path = remote(source)
    to_path = target_path(target, from_path.rpartition("/")[2])

    def work(synod: AsyncClient) -> Awaitable[Written]:
        call = synod.move if verb == "move" else synod.copy
        conditions = {} if if_match is None else {"if_match": if_match}
        return call(from_path, to_path, key=key, overwrite=force, **conditions)

    try:
        written = with_synod(url, work, timeout=timeout, silent=as_json)
    except Conflict as error:
        if "exists already" in str(error):
            hint = f"add -f to replace it, or write {target.removesuffix('/')}/ to put it into it"
            raise Conflict(f"{error}; {hint}", error.problem) from None
        raise
    if as_json:
        print_json({"source": from_path, "target": to_path, **written_json(written)})


def txn(
    source: Annotated[str, typer.Argument(help="A JSON file of steps, or - for stdin.")],
    key: Key = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Run several steps, all or none. A step is a JSON object, one of:

    \b
    {"op": "put", "path": …, "text": … | "base64": … | "file": LOCAL}
    {"op": "delete", "path": …}
    {"op": "mkdir", "path": …}   {"op": "rmdir", "path": …, "recursive": true}
    {"op": "move" | "copy", "source": …, "target": …, "overwrite": true}
    {"op": "check", "path": …, "if_match": TAG | "*", "if_none_match": "*"}

    All but mkdir and rmdir take if_match and if_none_match. The file holds a list of steps, or
    {"steps": […]}.
    """
    given = standard_input().read() if source == "-" else Path(source).read_bytes()
    steps = _steps(given)
    written = with_synod(
        url, lambda synod: synod.transaction(steps, key=key), timeout=timeout, silent=json
    )
    if json:
        print_json({"steps": len(steps), **written_json(written)})


def _steps(text: bytes) -> list[dict[str, Any]]:
    try:
        # Some editors begin UTF-8 with a byte order mark.
        given = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"that is no JSON: {error}") from None
    steps = given.get("steps") if isinstance(given, dict) else given
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise typer.BadParameter('a list of steps is needed, or {"steps": […]}')
    return [_with_contents(step) for step in steps]


def _with_contents(step: dict[str, Any]) -> dict[str, Any]:
    """Replace the local file that a step names by its contents."""
    if "file" not in step:
        return step
    try:
        data = Path(step["file"]).read_bytes()
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(f"{step['file']!a} is no local file: {error}") from None
    rest = {name: value for name, value in step.items() if name != "file"}
    kind = guess_type(str(step.get("path", "")))
    return {"content_type": kind, **rest, "base64": base64.b64encode(data).decode()}


def watch(
    prefix: Annotated[str, typer.Argument(help="What the paths begin with.")] = "",
    after: Annotated[str, typer.Option(help="Go on after the change of this id.")] = "",
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Print changes as they happen, until Ctrl-C; with --json one object a line."""
    begins = prefix.removeprefix("/")
    checked_path(begins.removesuffix("/"))

    async def work(synod: AsyncClient) -> None:
        async for change in synod.watch(begins, after=after):
            _print_change(change, json)

    try:
        with_synod(url, work, timeout=timeout, silent=json)
    except Ended as end:
        if end.number != signal.SIGINT:  # Users end a watch by Ctrl-C.
            raise


def _print_change(change: Change, as_json: bool) -> None:
    if as_json:
        about = {name: getattr(change, name) for name in change.__slots__}
        print_json_line(about)
        return
    if change.kind == "reset":
        note(f"synod: changes before slot {change.slot} were missed; look at the files anew")
        return
    where = f"{change.source} → {change.path}" if change.source else change.path
    size = f"  {size_text(change.size)}" if change.kind == "put" else ""
    time = datetime.now().strftime("%H:%M:%S")
    kind = change.kind.replace("_", " ")
    out().print(Text(visible(f"{time}  {kind:<16}  {where}{size}")))
