"""Commands about quotas: quota set, ls, rm."""

import re
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli.calls import with_synod
from gateway.cli.console import out, print_json
from gateway.cli.files import Json, Timeout, Url, remote, written_json
from gateway.cli.tls_options import tls_options
from observability.safe_text import visible
from synod.client import DEFAULT_URL

_UNITS = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    quota = typer.Typer(name="quota", help="Bound what may lie below a path.", no_args_is_help=True)
    for name, command in (("set", set_quota), ("ls", ls), ("rm", rm)):
        quota.command(name)(tls_options(command))
    cli.add_typer(quota)


def set_quota(
    path: Annotated[str, typer.Argument(help="A path in Synod; / is the root.")],
    entries: Annotated[
        int | None, typer.Option(min=0, help="The most files and directories below it.")
    ] = None,
    bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The most bytes of contents, as 500, 20k, 3M, 1G."),
    ] = None,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Set the quota of a path, in place of its former one."""
    if entries is None and bytes is None:
        raise typer.BadParameter("give --entries, --bytes or both")
    inside, most = remote(path), None if bytes is None else _size(bytes)
    written = with_synod(
        url,
        lambda synod: synod.set_quota(inside, entries=entries, bytes=most),
        timeout=timeout,
        silent=json,
    )
    if json:
        print_json({"path": inside, **written_json(written)})


def ls(
    path: Annotated[str, typer.Argument(help="Only quotas at and below this path.")] = "",
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """List quotas, and what is used of them."""
    inside = remote(path)
    quotas = with_synod(url, lambda synod: synod.quotas(inside), timeout=timeout, silent=json)
    if json:
        print_json(quotas)
        return
    table = Table("path", "entries", "of", "bytes", "of", box=None, pad_edge=False)
    for one in quotas:
        used, most = (one["used_entries"], one["used_bytes"]), (one["entries"], one["bytes"])
        cells = [f"/{one['path']}"]
        for now, limit in zip(used, most, strict=True):
            cells += [str(now), "any" if limit is None else str(limit)]
        table.add_row(*map(visible, cells))
    out().print(table)


def rm(
    path: Annotated[str, typer.Argument(help="A path in Synod.")],
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Remove the quota of a path."""
    inside = remote(path)
    written = with_synod(
        url, lambda synod: synod.remove_quota(inside), timeout=timeout, silent=json
    )
    if json:
        print_json({"path": inside, "slot": written.slot})


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([kMGT]?)", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size such as 500, 20k, 3M, 1G")
    return int(found[1]) * _UNITS[found[2]]
