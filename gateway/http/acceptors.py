"""`POST /v1/acceptors/{name}/replace`: another disk in the place of an acceptor's."""

import re
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.calls import AcceptorsReport
from actors.paxos.membership import Configuration
from gateway.callers import caller_of
from gateway.cluster import Cluster
from gateway.http.problems import NOT_FOUND, Problem
from gateway.http.schemas import AcceptorDisk, Acceptors, ChangeAccepted

_NAME = re.compile("acceptor-[1-9][0-9]?")
_NO_STORE = {"cache-control": "no-store"}


class AcceptorEndpoints:
    """The endpoint."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def replace(self, request: Request) -> Response:
        """Begin the change; `/v1/cluster` shows how it goes on. Raises `Problem`."""
        name: str = request.path_params["name"]
        if not _NAME.fullmatch(name):
            raise Problem(NOT_FOUND, f"{name!a} is not the name of an acceptor")
        version = await self._cluster.replace_acceptor(caller_of(request.scope), name)
        body: ChangeAccepted = {"name": name, "version": version}
        return JSONResponse(body, status_code=HTTPStatus.ACCEPTED, headers=_NO_STORE)


def acceptors_json(report: AcceptorsReport) -> Acceptors:
    """The acceptors and a change that is under way, for `/v1/cluster`."""
    membership = report.membership
    oldest, newest = membership.active[0], membership.newest
    return {
        "version": oldest.version,
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
    }


def _disks(configuration: Configuration) -> list[AcceptorDisk]:
    return [{"name": one.name, "disk": one.disk} for one in configuration.acceptors]
