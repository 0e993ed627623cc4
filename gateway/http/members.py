"""`/v1/members`: who is a member of the cluster; members are replaced, added and removed."""

import re
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.calls import AcceptorsReport, MemberReport, MembersReport, Surveyed
from actors.messages import Action
from actors.paxos.membership import Configuration
from gateway.callers import caller_of
from gateway.cluster import Cluster
from gateway.http.member_schemas import (
    AcceptorDisk,
    Acceptors,
    ChangeAccepted,
    MemberItem,
    MemberList,
    RosterStatus,
)
from gateway.http.parameters import MEMBER
from gateway.http.problems import NOT_FOUND, Problem

_NAME = re.compile(MEMBER.pattern or "")
_NO_STORE = {"cache-control": "no-store"}


class MemberEndpoints:
    """The endpoints."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def members(self, request: Request) -> Response:
        """The members, and the changes that are under way. Raises `Problem`."""
        survey = await self._cluster.survey_founded()
        return JSONResponse(members_json(survey), headers=_NO_STORE)

    async def member(self, request: Request) -> Response:
        """Begin to add a member (PUT) or to remove one (DELETE). Raises `Problem`."""
        return await self._change(request, "add" if request.method == "PUT" else "remove")

    async def replace(self, request: Request) -> Response:
        """Begin to put a member's disk in the place of the one that it lost. Raises `Problem`."""
        return await self._change(request, "replace")

    async def _change(self, request: Request, action: Action) -> Response:
        name: str = request.path_params["name"]
        if not _NAME.fullmatch(name):
            hint = "; gateways are started and ended freely" if name.startswith("gateway-") else ""
            raise Problem(NOT_FOUND, f"{name!a} is not the name of a member{hint}")
        version = await self._cluster.change_member(caller_of(request.scope), action, name)
        body: ChangeAccepted = {"name": name, "action": action, "version": version}
        return JSONResponse(body, status_code=HTTPStatus.ACCEPTED, headers=_NO_STORE)


def members_json(survey: Surveyed) -> MemberList:
    """The members as `/v1/members` and `/v1/cluster` show them; all empty before the founding."""
    known = survey.members
    members = () if known is None else known.members
    return {
        "acceptors": None if survey.acceptors is None else _acceptors_json(survey.acceptors),
        "roster": None if known is None else _roster_json(known),
        "members": [_member_json(one, survey) for one in members if not _has_gone(one, survey)],
    }


def outsiders(survey: Surveyed) -> set[str]:
    """The nodes that are no part of the cluster's state: removed, or newcomers that are gone."""
    members = () if survey.members is None else survey.members.members
    return {one.name for one in members if one.standing == "removed" or _has_gone(one, survey)}


def _has_gone(known: MemberReport, survey: Surveyed) -> bool:
    """Whether a node that nobody has added runs no more: it waits for nothing."""
    seen = survey.nodes.get(known.name)
    is_silent = seen is None or seen.age_ms >= survey.silent_ms
    return known.standing == "newcomer" and is_silent


def _acceptors_json(report: AcceptorsReport) -> Acceptors:
    membership = report.membership
    oldest, newest = membership.active[0], membership.newest
    return {
        "version": oldest.version,
        "newest": newest.version,
        "members": _disks(oldest),
        "change": None
        if membership.is_settled
        else {
            "version": newest.version,
            "members": _disks(newest),
            "slot": newest.named_slot,
            "first_slot": newest.first_slot,
        },
        "settled_slot": membership.settled_slot,
        "durable_through": report.durable_mark,
        "former_needed": report.needs_former,
        "waits_for": _what_acceptors_wait_for(report),
    }


def _what_acceptors_wait_for(report: AcceptorsReport) -> str | None:
    membership = report.membership
    if not report.needs_former:
        return None
    if membership.is_settled:
        return (
            f"the end of the change, slot {membership.settled_slot}, to be durable everywhere "
            f"(everything is through slot {report.durable_mark})"
        )
    newest = membership.newest
    return (
        f"the acceptors of version {newest.version}, which begin with slot {newest.first_slot} "
        f"(everything is durable through slot {report.durable_mark})"
    )


def _disks(configuration: Configuration) -> list[AcceptorDisk]:
    return [{"name": one.name, "disk": one.disk} for one in configuration.acceptors]


def _roster_json(known: MembersReport) -> RosterStatus:
    waits_for = f"slot {known.slot}, which names them, to be durable everywhere"
    return {
        "version": known.version,
        "newest": known.version,
        "slot": known.slot,
        "waits_for": None if known.is_durable else waits_for,
    }


def _member_json(known: MemberReport, survey: Surveyed) -> MemberItem:
    seen = survey.nodes.get(known.name)
    waits_for = known.waits_for
    if known.standing in ("member", "joining"):
        waits_for = _absence(known, survey) or _lag(known, survey) or waits_for
    return {
        "name": known.name,
        "role": known.role,
        "standing": known.standing,
        "disk": known.disk or None,
        "runs_on": known.runs_on or None,
        "age_ms": None if seen is None else seen.age_ms,
        "waits_for": waits_for or None,
        "command": {
            "newcomer": f"synod add {known.name}",
            "uncounted": f"synod replace {known.name}",
        }.get(known.standing),
    }


def _absence(known: MemberReport, survey: Surveyed) -> str:
    """Why a member can't do its part; empty if it can."""
    seen = survey.nodes.get(known.name)
    if seen is None:
        return "it to be heard"
    if seen.heartbeat.halted:
        return f"it to be started again: it halted: {seen.heartbeat.halted}"
    if seen.age_ms >= survey.silent_ms:
        return f"it to be heard again: it has been silent for {seen.age_ms // 1000} s"
    return ""


def _lag(known: MemberReport, survey: Surveyed) -> str:
    """What a store or a learner still lacks. A store is whole once its journal has reached the slot
    that added it to the view; a learner needs at least what is durable everywhere, because
    acceptors may no longer have it.
    """
    seen = survey.nodes.get(known.name)
    if seen is None or survey.acceptors is None:
        return ""
    heartbeat = seen.heartbeat
    if heartbeat.installing or heartbeat.chunks_missing:
        lacking = f"{heartbeat.rows_left} rows of the state, {heartbeat.chunks_missing} contents"
        return f"it to copy what it lacks: {lacking}"
    view = None if survey.view is None else survey.view.member(known.name)
    if known.role == "store" and view is not None and heartbeat.durable < (view.added_slot or 0):
        return f"it to catch up: slot {heartbeat.durable} of {view.added_slot}"
    durable = survey.acceptors.durable_mark
    if known.role == "learner" and heartbeat.chosen_through < durable:
        return f"it to catch up: slot {heartbeat.chosen_through} of {durable}"
    return ""
