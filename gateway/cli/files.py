"""Commands for files: put, get, ls, stat, rm, mkdir."""

import contextlib
import sys
import time
from collections.abc import Awaitable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gateway.cli.calls import with_synod
from gateway.cli.console import Bar, note, out, print_json, size_text, standard_input
from gateway.cli.download_targets import target_of
from gateway.cli.exit_codes import FAILED, UNDECIDED, exit_code_of
from gateway.cli.tls_options import tls_options
from gateway.cli.transfer import PARALLEL, Tally, get_file, get_tree, put_file, put_tree
from gateway.cli.upload_sources import LocalFile, opened
from observability.safe_text import visible
from synod.client import DEFAULT_URL, AsyncClient
from synod.entries import Entry, Written
from synod.errors import Conflict, NotFound, TooLarge
from synod.paths import checked_path, child

_FILES_AT_ONCE = 500

Url = Annotated[
    str, typer.Option("--url", envvar="SYNOD_URL", help="Where the gateway is.", metavar="URL")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        envvar="SYNOD_TIMEOUT",
        min=0.1,
        max=86_400,
        help="Seconds to try.  [default: 15 for what only reads, 60 for the rest]",
        show_default=False,
        metavar="S",
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace read-only files, too.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, help="Files at a time.")]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (
        ("put", put),
        ("get", get),
        ("ls", ls),
        ("stat", stat),
        ("rm", rm),
        ("mkdir", mkdir),
    ):
        cli.command(name)(tls_options(command))


def remote(argument: str) -> str:
    """The path for what a user typed: one slash before it and one after it are ignored."""
    return checked_path(argument.removeprefix("/").removesuffix("/"))


def put(
    source: Annotated[str, typer.Argument(help="A file, a folder with -r, or - for stdin.")],
    target: Annotated[str, typer.Argument(help="A path in Synod; one ending in / is a directory.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Copy a folder.")] = False,
    if_match: Annotated[
        str | None, typer.Option(help="Only if the file has this ETag (* for any).")
    ] = None,
    if_none_match: Annotated[
        str | None, typer.Option(help="Only if it has not; * for: only if it does not exist.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--idempotency-key", help="The same key is applied once.")
    ] = None,
    jobs: Jobs = PARALLEL,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a file or a folder into Synod."""
    if recursive:
        folder = Path(source)
        if not folder.is_dir():
            raise typer.BadParameter(f"{source} is not a folder", param_hint="SOURCE")
        if not (if_match is if_none_match is key is None):
            raise typer.BadParameter("conditions and keys are for single files, not for -r")
        with Bar(shown=not (json or quiet), many=True) as bar:
            began = time.monotonic()
            tally = with_synod(
                url,
                lambda synod: put_tree(synod, folder, remote(target), progress=bar, parallel=jobs),
                jobs,
                timeout=timeout,
                silent=json or quiet,
            )
        _report(tally, time.monotonic() - began, "put", json, quiet)
        return
    inside = target_path(target, None if source == "-" else Path(source).name)
    if source != "-" and Path(source).is_dir():
        raise typer.BadParameter(f"{source} is a folder; add -r", param_hint="SOURCE")
    # A pipe is opened before the event loop runs, because opening waits for its writer.
    with _source(source) as local, Bar(shown=not (json or quiet), many=False) as bar:
        bar.expect(1, local.size)

        def work(synod: AsyncClient) -> Awaitable[Written]:
            return put_file(
                synod,
                local,
                inside,
                progress=bar,
                if_match=if_match,
                if_none_match=if_none_match,
                key=key,
            )

        try:
            written = with_synod(url, work, timeout=timeout, silent=json or quiet)
        except Conflict as error:
            if error.problem.get("found") == "directory" or "is a directory" in str(error):
                hint = f"{error}; write {target}/ to put the file into it"
                raise Conflict(hint, error.problem) from None
            raise
    if json:
        print_json({"path": inside, **written_json(written)})


@contextlib.contextmanager
def _source(source: str) -> Iterator[LocalFile]:
    if source != "-":
        with opened(Path(source)) as local:
            yield local
        return
    given = standard_input()
    # Without a buffer, reading a slow pipe can be cancelled.
    body = getattr(given, "raw", given)
    yield LocalFile("standard input", body, 0, None, executable=False)


def get(
    source: Annotated[str, typer.Argument(help="A path in Synod.")],
    target: Annotated[str, typer.Argument(help="A local file or folder, or - for stdout.")] = ".",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Copy a directory.")] = False,
    force: Force = False,
    jobs: Jobs = PARALLEL,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy a file or a directory out of Synod, checked against its digest.

    A file appears whole or not at all. A link is followed, and a pipe or a device (/dev/stdout) is
    written to; with -r neither is touched.
    """
    inside = remote(source)
    if recursive:
        if target == "-":
            raise typer.BadParameter("a directory can't go to standard output")
        with Bar(shown=not (json or quiet), many=True) as bar:
            began = time.monotonic()
            tally = with_synod(
                url,
                lambda synod: get_tree(
                    synod, inside, Path(target), progress=bar, parallel=jobs, force=force
                ),
                jobs,
                timeout=timeout,
                silent=json or quiet,
            )
        _report(tally, time.monotonic() - began, "get", json, quiet)
        return
    if target == "-":
        with_synod(
            url,
            lambda synod: synod.download(inside, sys.stdout.buffer.write),
            timeout=timeout,
            silent=json or quiet,
        )
        sys.stdout.buffer.flush()
        return
    if Path(target).is_dir() or target.endswith("/"):
        target = str(Path(target) / inside.rpartition("/")[2])
    with (
        target_of(target, force=force) as place,
        Bar(shown=not (json or quiet), many=False) as bar,
    ):

        async def work(synod: AsyncClient) -> Entry:
            bar.expect(1, (await synod.stat(inside)).size)
            return await get_file(synod, inside, place, progress=bar)

        try:
            entry = with_synod(url, work, timeout=timeout, silent=json or quiet)
        except Conflict as error:
            raise Conflict(f"{error}; add -r to get a directory", error.problem) from None
    if json:
        print_json({**_entry_json(entry), "target": target})


def ls(
    path: Annotated[str, typer.Argument(help="A directory in Synod.")] = "",
    long: Annotated[
        bool, typer.Option("--long", "-l", help="With size, time and version.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """List a directory."""
    inside = remote(path)

    async def work(synod: AsyncClient) -> list[Entry]:
        try:
            return [entry async for entry in synod.list(inside)]
        except Conflict:
            return [await synod.stat(inside)]

    entries = with_synod(url, work, timeout=timeout, silent=json)
    if json:
        print_json([_entry_json(entry) for entry in entries])
    elif long:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for column in ("right", "left", "right", "left"):
            table.add_column(justify=column)
        for entry in entries:
            table.add_row(*_long(entry))
        out().print(table)
    else:
        for entry in entries:
            out().print(Text(visible(entry.name) + ("/" if entry.is_directory else "")))


def stat(
    path: Annotated[str, typer.Argument(help="A path in Synod.")],
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Show a file's metadata."""
    inside = remote(path)
    entry = with_synod(url, lambda synod: synod.stat(inside), timeout=timeout, silent=json)
    if json:
        print_json(_entry_json(entry))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _entry_json(entry).items():
        text = _local_time(entry.modified_ms) if name == "modified_ms" else str(value)
        table.add_row(name.removesuffix("_ms").replace("_", " "), Text(visible(text)))
    out().print(table)


def rm(
    paths: Annotated[list[str], typer.Argument(help="Paths in Synod.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Directories with all below them, too.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Remove files."""
    insides = [remote(path) for path in paths]

    async def remove(synod: AsyncClient, path: str) -> Written:
        try:
            return await synod.delete(path)
        except Conflict as error:
            if not recursive:
                hint = f"{error}; add -r to remove it with all below it"
                raise Conflict(hint, error.problem) from None
        try:
            return await synod.remove_directory(path, recursive=True)
        except TooLarge:
            note(f"{path} holds more than one request may remove: removing it part by part")
            return await _remove_in_parts(synod, path)

    async def work(synod: AsyncClient) -> list[dict[str, Any]]:
        removed = []
        for path in insides:
            try:
                removed.append({"path": path, **written_json(await remove(synod, path))})
            except NotFound:
                raise NotFound(f"there is no file or directory {path!r}") from None
        return removed

    removed = with_synod(url, work, timeout=timeout, silent=json)
    if json:
        print_json(removed)


async def _remove_in_parts(synod: AsyncClient, path: str) -> Written:
    """Remove a directory that is too large for one request, in steps that others can see."""
    files: list[str] = []
    directories: list[str] = []
    async for entry in synod.list(path):
        (directories if entry.is_directory else files).append(entry.path)
    for directory in directories:
        try:
            await synod.remove_directory(directory, recursive=True)
        except TooLarge:
            await _remove_in_parts(synod, directory)
        except NotFound:
            continue  # Another client removed it meanwhile, with the intended result.
    for start in range(0, len(files), _FILES_AT_ONCE):
        some = files[start : start + _FILES_AT_ONCE]
        await synod.transaction({"op": "delete", "path": file} for file in some)
    return await synod.remove_directory(path, recursive=True)


def mkdir(
    path: Annotated[str, typer.Argument(help="A path in Synod.")],
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Make a directory and its missing parents."""
    inside = remote(path)
    written = with_synod(
        url, lambda synod: synod.make_directory(inside), timeout=timeout, silent=json
    )
    if json:
        print_json({"path": inside, **written_json(written)})


def target_path(target: str, name: str | None) -> str:
    """The target path for `name`: below `target` if that ends in a slash, else `target` itself."""
    if target in ("", "/") or target.endswith("/"):
        if name is None:
            raise typer.BadParameter("standard input has no name; give one", param_hint="TARGET")
        return checked_path(child(remote(target), name))
    return remote(target)


def _report(tally: Tally, seconds: float, verb: str, json: bool, quiet: bool) -> None:
    if json:
        print_json(
            {
                "complete": tally.complete,
                "files": tally.files,
                "directories": tally.directories,
                "bytes": tally.size_bytes,
                "seconds": round(seconds, 3),
                "skipped": [failure._asdict() for failure in tally.skipped],
                "failures": [failure._asdict() for failure in tally.failures],
                "stopped": tally.stopped,
            }
        )
    else:
        for skipped in tally.skipped:
            note(f"skipped {visible(skipped.path)}: {skipped.reason}")
        for failure in tally.failures:
            note(f"failed  {visible(failure.path)}: {failure.reason}")
        if tally.stopped:
            note(f"synod: stopped before the end: {tally.stopped}")
        if not quiet:
            rate = f"{tally.files / seconds:.0f} files/s" if seconds else ""
            failed = f", {len(tally.failures)} failed" if tally.failures else ""
            note(
                f"{verb} {tally.files} files, {size_text(tally.size_bytes)} in "
                f"{seconds:.1f} s ({rate}){failed}"
            )
    if not tally.complete:
        raise typer.Exit(_exit_code(tally))


def _exit_code(tally: Tally) -> int:
    """The exit code that all failures have in common; undecided if one of them is."""
    codes = {exit_code_of(error) for error in tally.errors}
    if UNDECIDED in codes:
        return UNDECIDED
    alike = len(codes) == 1 and len(tally.errors) >= len(tally.failures)
    return codes.pop() if alike else FAILED


def _long(entry: Entry) -> tuple[Text, Text, Text, Text]:
    if entry.is_directory:
        return Text("-"), Text("-"), Text("-"), Text(f"{visible(entry.name)}/")
    return (
        Text(size_text(entry.size)),
        Text(_local_time(entry.modified_ms)),
        Text(f"v{entry.version}"),
        Text(visible(entry.name) + ("*" if entry.executable else "")),
    )


def _local_time(modified_ms: int) -> str:
    try:
        moment = datetime.fromtimestamp(modified_ms / 1000).astimezone()
    except (OverflowError, ValueError, OSError):
        return f"{modified_ms} ms"
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _entry_json(entry: Entry) -> dict[str, Any]:
    if entry.is_directory:
        return {"kind": "directory", "name": entry.name, "path": entry.path}
    return {
        "kind": "file",
        "name": entry.name,
        "path": entry.path,
        "size": entry.size,
        "etag": entry.etag,
        "version": entry.version,
        "sha256": entry.sha256,
        "content_type": entry.content_type,
        "modified_ms": entry.modified_ms,
        "executable": entry.executable,
        "meta": dict(entry.meta),
    }


def written_json(written: Written) -> dict[str, Any]:
    """A write as --json shows it."""
    return {
        "created": written.created,
        "etag": written.etag,
        "slot": written.slot,
        "request": written.request,
    }
