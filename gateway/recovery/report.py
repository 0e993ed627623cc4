"""The report of a look at a lost cluster's folders: what will be there, and what may be missing."""

from collections.abc import Iterator
from typing import Any

from actors.recovery.judgement import Judgement, OpenCommand, Standing
from actors.values import paths_of
from gateway.recovery.folders import OpenedNode
from gateway.recovery.recover import Look

_NAMED_MOST = 20
_STANDINGS: dict[Standing, str] = {
    "member": "in the view",
    "joining": "in the view, but it had not caught up",
    "dropped": "dropped from the view",
    "outside": "not in the view: dropped before, or still copying",
    "diverged": "diverged, and knows it: only its contents are used",
}


def report_of(look: Look) -> dict[str, Any]:
    """The report for programs."""
    judged = look.judged
    return {
        "cluster": judged.genesis.cluster,
        "base": judged.base.name,
        "base_slot": judged.base_slot,
        "through": judged.through,
        "view_epoch": judged.view.epoch,
        "answered_epoch": judged.epoch,
        "view": [member.name for member in judged.view.stores],
        "members_given": judged.members,
        "members_absent": list(judged.absent),
        "later_view": judged.is_later_view_known,
        "acceptors_are_quorum": judged.has_quorum,
        "nodes": [_node(look, one) for one in look.nodes],
        "open": [_command(one) for one in judged.open],
        "unknown_slots": judged.unknown,
        "accepted_through": judged.accepted_through,
        "files": len(look.collected.contained.files),
        "lost_files": [entry.path for entry in look.collected.lost],
        "missing": list(may_be_missing(look)),
    }


def _node(look: Look, one: OpenedNode) -> dict[str, Any]:
    judged, node = look.judged, one.node
    place = str(one.folder.path)
    about: dict[str, Any] = {
        "node": node.name,
        "disk": node.disk,
        "folder": place,
        "written_at": one.folder.written_at,
        "contents_used": look.contents.used[place],
    }
    if node.role == "acceptor":
        return {**about, "accepted_through": max(node.accepted, default=0)}
    slot = look.applied[node.name, node.disk]
    about |= {
        "slot": slot,
        "behind": judged.base_slot - slot,
        "compared": judged.compared.get((node.name, node.disk), ""),
    }
    if node.role == "store":
        contained = look.collected.contained
        needed = set(contained.chunk_names())
        about |= {
            "standing": judged.standings[node.name, node.disk],
            "answered_epoch": node.fence,
            "prepared": sorted(slot for slot in node.prepared if slot > judged.base_slot),
            "contents_lacking": len(needed - node.blobs),
            "contents_rotten": sorted(look.contents.rotten.get(place, ())),
        }
    return about


def _command(one: OpenCommand) -> dict[str, Any]:
    return {
        "slot": one.slot,
        "index": one.index,
        "request": one.command.request,
        "operation": one.command.operation.kind,
        "paths": list(dict.fromkeys(paths_of(one.command.operation))),
        "applied": not one.left_out,
        "left_out": one.left_out,
        "result": one.outcome.status,
    }


def may_be_missing(look: Look) -> Iterator[str]:
    """What may be missing or otherwise than clients know, a sentence each."""
    judged = look.judged
    yield _assumption(judged)
    applied = [one for one in judged.open if not one.left_out]
    if applied:
        yield (
            f"{len(applied)} commands in slots {applied[0].slot} to {applied[-1].slot} were "
            "prepared and are in no journal as decided. They may have been acknowledged, so they "
            "are applied; a client may instead have got no answer, or that one was aborted"
        )
    odd = [one for one in applied if one.outcome.status != "done"]
    if odd:
        yield (
            f"{len(odd)} of them had no effect here ({_requests(odd)}). If one was acknowledged, "
            "then a command before it was aborted in the old cluster, and is applied here"
        )
    left_out = [one for one in judged.open if one.left_out]
    if left_out:
        yield (
            f"{len(left_out)} commands are not applied, since they can't have been acknowledged "
            f"as done: {_requests(left_out)}"
        )
    if judged.unknown:
        yield (
            f"slots {_spans(judged.unknown)} were chosen, and no journal proves their values. No "
            "store prepared them: they hold no acknowledged write, but may abort one that is "
            "applied here"
        )
    for name, slot in sorted(judged.accepted_through.items()):
        yield (
            f"{name} accepted values up to slot {slot}, beyond {judged.through}. No given store "
            "has prepared them, and they are not applied"
        )
    lost = look.collected.lost
    if lost:
        names = ", ".join(repr(entry.path) for entry in lost[:_NAMED_MOST])
        more = " …" if len(lost) > _NAMED_MOST else ""
        yield f"the contents of {len(lost)} files are lost: {names}{more}"


def _assumption(judged: Judgement) -> str:
    members = ", ".join(judged.members)
    if not members:
        return (
            f"no given store is known to be in the view of slot {judged.base_slot}: whatever was "
            "acknowledged after that slot may be missing"
        )
    if judged.is_later_view_known:
        until = (
            f"a given store has answered epoch {judged.epoch}, whose view is in no journal: if it "
            f"left out {members}, what was acknowledged in it may be missing"
        )
    else:
        until = (
            f"{members} {'are' if len(judged.members) > 1 else 'is'} in the latest view that the "
            "journals know. Nothing that was acknowledged is missing, unless a later view went on "
            f"without {'all of them' if len(judged.members) > 1 else 'it'}"
        )
    if judged.absent:
        until += f". {', '.join(judged.absent)} could have: give that folder, too, if it exists"
    return until


def _requests(commands: list[OpenCommand]) -> str:
    shown = "; ".join(
        f"slot {one.slot}, {one.command.operation.kind} "
        f"{' '.join(map(repr, dict.fromkeys(paths_of(one.command.operation))))} "
        f"({one.left_out or one.outcome.status})"
        for one in commands[:_NAMED_MOST]
    )
    return shown + (" …" if len(commands) > _NAMED_MOST else "")


def _spans(slots: list[int]) -> str:
    """Numbers in order, as `3, 5-7`."""
    spans: list[list[int]] = []
    for slot in slots:
        if spans and slot == spans[-1][1] + 1:
            spans[-1][1] = slot
        else:
            spans.append([slot, slot])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def lines_of(look: Look) -> Iterator[str]:
    """The report for people."""
    about = report_of(look)
    yield f"cluster {about['cluster']}, as its journals show it; nothing in them was changed"
    for node in about["nodes"]:
        yield "  ".join(_columns(node))
    yield (
        f"the state is that of slot {about['base_slot']}, from {about['base']}"
        + (f", then slots up to {about['through']}" if about["open"] else "")
        + f": {about['files']} files"
    )
    for sentence in about["missing"]:
        yield f"- {sentence}"
    for one in about["open"][:_NAMED_MOST]:
        paths = " ".join(map(repr, one["paths"]))
        done = f"applied: {one['result']}" if one["applied"] else f"left out: {one['left_out']}"
        where = f"{one['slot']}-{one['index']}  {one['request']}"
        yield f"  {where}  {one['operation']} {paths}: {done}"
    if len(about["open"]) > _NAMED_MOST:
        yield f"  … and {len(about['open']) - _NAMED_MOST} more; --json lists all"


def _columns(node: dict[str, Any]) -> Iterator[str]:
    yield f"{node['node']:<11}"
    if "slot" not in node:
        yield f"accepted up to slot {node['accepted_through']}"
    else:
        yield f"slot {node['slot']}" + (f" ({node['behind']} behind)" if node["behind"] else "")
    if "standing" in node:
        yield _STANDINGS[node["standing"]]
        if node["prepared"]:
            yield f"prepared {_spans(node['prepared'])}"
        if node["contents_lacking"] or node["contents_rotten"]:
            yield (
                f"lacks {node['contents_lacking']} contents, {len(node['contents_rotten'])} rotten"
            )
    if node["contents_used"]:
        yield f"{node['contents_used']} contents are taken from it"
    yield f"last written {node['written_at']}"
    yield node["folder"]
