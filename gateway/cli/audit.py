"""The command audit: who did what, from the log; its chain is checked, exported and followed."""

import json as json_text
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.audit_check import check_cluster, pages
from gateway.cli.calls import with_synod
from gateway.cli.console import note, out, print_json
from gateway.cli.exit_codes import FAILED
from gateway.cli.files import Json, Timeout, Url, remote
from gateway.cli.tls_options import tls_options
from observability.safe_text import visible
from synod.audit import Chain, ChainBroken, check_export
from synod.client import DEFAULT_URL, AsyncClient

_WAIT_S = 5
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

OfLearner = Annotated[
    str, typer.Option(metavar="NAME", help="Ask this learner; all have the same records.")
]
Heads = Annotated[
    list[str],
    typer.Option(
        "--head",
        metavar="HASH",
        help="A hash that was noted before, which the chain must have. May be repeated.",
    ),
]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    audit = typer.Typer(name="audit", help="Who did what: list, follow, verify, export.")
    audit.callback(invoke_without_command=True)(tls_options(show))
    audit.command("verify")(tls_options(verify))
    audit.command("export")(tls_options(export))
    cli.add_typer(audit)


def show(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Only what concerns this path, or below it.")] = "",
    principal: Annotated[
        str, typer.Option(help="Only what @USER did, or a token, by its id, or the administrator.")
    ] = "",
    operation: Annotated[str, typer.Option(help="Only this kind, as put_file.")] = "",
    result: Annotated[str, typer.Option(help="Only this result, as done or denied.")] = "",
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Not older than 30d, 12h, 15m, 90s of log time.")
    ] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Older than that.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000, help="How many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
    refusals: Annotated[
        bool, typer.Option("--refusals", help="What the gateway refused, and who logged in.")
    ] = False,
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """List the newest records of who did what, or go on with verify or export."""
    if context.invoked_subcommand is not None:
        return
    if refusals:
        page = with_synod(url, lambda synod: synod.refusals(limit), timeout=timeout, silent=json)
        _print_refusals(page, json)
        return
    asked: dict[str, str | int] = {
        name: text
        for name, text in (
            ("prefix", remote(prefix) if prefix else ""),
            ("principal", principal),
            ("operation", operation),
            ("result", result),
        )
        if text
    }
    ages = {"since_ms": _age_ms(since), "until_ms": _age_ms(until)}

    async def work(synod: AsyncClient) -> list[dict[str, Any]]:
        if any(age is not None for age in ages.values()):
            now_ms = (await synod.audit(limit=1, **asked))["log_time_ms"]
            asked.update({k: max(0, now_ms - age) for k, age in ages.items() if age is not None})
        page = await synod.audit(limit=limit, order="newest", **asked)
        records: list[dict[str, Any]] = page["records"][::-1]
        if not follow:
            return records
        _print_records(records, json)
        after = page["count"]
        while True:
            page = await synod.audit(after=after, order="oldest", wait_s=_WAIT_S, **asked)
            _print_records(page["records"], json)
            after = page["through"]

    records = with_synod(url, work, timeout=timeout, silent=json)
    if json:
        print_json(records)
    else:
        _print_records(records, lines=False)


def verify(
    file: Annotated[
        Path | None, typer.Argument(help="An export; without one, the records of the cluster.")
    ] = None,
    head: Heads = [],  # noqa: B006 - typer reads it, and it is not changed
    learner: OfLearner = "",
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Check that no record was changed, added or removed; exit code 1 if one was."""
    try:
        if file is not None:
            with file.open("rb") as lines:
                chain = check_export(lines, head)
        else:
            chain = with_synod(
                url, lambda synod: check_cluster(synod, learner, head), timeout=timeout, silent=json
            )
    except ChainBroken as error:
        if json:
            print_json({"whole": False, "record": error.number, "detail": f"{error}"})
        else:
            note(f"synod: {visible(str(error))}")
        raise typer.Exit(FAILED) from None
    if json:
        print_json({"whole": True, "first": chain.first, "last": chain.count, "head": chain.head})
    else:
        out().print(f"records {chain.first} to {chain.count} are whole; the head is {chain.head}")


def export(
    target: Annotated[str, typer.Argument(help="A file, or - for standard output.")] = "-",
    after: Annotated[int, typer.Option(min=0, help="Only records after this number.")] = 0,
    learner: OfLearner = "",
    url: Url = DEFAULT_URL,
    timeout: Timeout = None,
) -> None:
    """Write all records as JSON lines, and the end of the chain as the last one."""

    async def work(synod: AsyncClient, write: Any) -> None:
        chain: Chain | None = None
        page: dict[str, Any] = {}
        async for page in pages(synod, after, learner):
            for record in page["records"]:
                if chain is None:
                    chain = Chain(record["number"], page["previous"])
                chain.add(record)
                write(_line(record))
        if chain is None:
            chain = Chain(page["count"] + 1, page["head"])
        end = {
            "first": chain.first,
            "count": chain.count,
            "previous": chain.previous,
            "head": chain.head,
            "slot": page["slot"],
            "log_time_ms": page["log_time_ms"],
        }
        write(_line({"end": end}))

    try:
        if target == "-":
            with_synod(url, lambda synod: work(synod, sys.stdout.write), timeout=timeout)
            return
        with Path(target).open("x", encoding="utf-8", errors="surrogatepass") as file:
            with_synod(url, lambda synod: work(synod, file.write), timeout=timeout)
    except ChainBroken as error:
        note(f"synod: {visible(str(error))}")
        raise typer.Exit(FAILED) from None


def _line(value: dict[str, Any]) -> str:
    return json_text.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _age_ms(text: str) -> int | None:
    if not text:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time such as 30d, 12h, 15m, 90s")
    return int(found[1]) * _UNITS_MS[found[2]]


def _print_records(records: list[dict[str, Any]], lines: bool) -> None:
    """Print records: `lines` of JSON, or a line of text each."""
    for record in records:
        if lines:
            sys.stdout.write(_line(record))
        else:
            out().print(visible(_text(record)), markup=False, soft_wrap=True)
    sys.stdout.flush()


_NAMES = ("path", "login", "token", "user", "group", "session")


def _text(record: dict[str, Any]) -> str:
    step = f".{record['step']}" if "step" in record else ""
    what = " ".join(str(record[name]) for name in _NAMES if name in record)
    if "version" in record:
        names = [name for name, _ in record.get("acceptors", ())] + record.get("members", [])
        what = f"version {record['version']}" + (f": {', '.join(names)}" if names else "")
    if "source" in record:
        what = f"{record['source']} → {what}"
    for sign, name in (("", "grants"), ("-", "revoked")):
        if record.get(name):
            what += " " + ", ".join(f"{sign}{role}:/{path}" for role, path in record[name])
    for sign, name in (("@", "groups"), ("+@", "joined"), ("-@", "left")):
        if record.get(name):
            what += " " + ", ".join(f"{sign}{group}" for group in record[name])
    if "new_password" in record:
        what += " (new password)"
    again = f" (again: {record['first']})" if "first" in record else ""
    return (
        f"{record['number']:>6}  {record['slot']}-{record['index']}{step}  "
        f"{record['log_time_ms'] / 1_000:.3f} s  {record['principal'] or 'administrator'}  "
        f"{' '.join(filter(None, (record['operation'], what)))}  {record['result']}{again}"
    )


def _print_refusals(page: dict[str, Any], json: bool) -> None:
    if json:
        print_json(page)
        return
    for one in page["refusals"][::-1]:
        said = (
            f"{one['time']}  {one['kind']}  {one['status']}  {one['address'] or 'somebody'}  "
            f"{one['token'] or 'no token'}  {one['method']} {one['path']}"
        )
        why = f"  {one['reason']}" if one["reason"] else ""
        out().print(visible(said + why), markup=False, soft_wrap=True)
    if page["suppressed"]:
        note(f"{page['suppressed']} more were not kept")
