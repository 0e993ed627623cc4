"""The endpoints that report the state of the cluster, of this gateway, and of single requests."""

from dataclasses import asdict
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actors.calls import NodeReport, Surveyed
from actors.messages import ReadRequest, ReadStatus
from actors.numbers import COUNT_MAX
from actors.options import role_of
from actors.paxos.ballot import Ballot
from gateway.callers import caller_of
from gateway.cluster import RETRY_AFTER, Cluster
from gateway.http.headers import query_fields
from gateway.http.members import members_json, outsiders
from gateway.http.parameters import READY_FOR
from gateway.http.problems import FORBIDDEN, FORGOTTEN, NOT_FOUND, UNAVAILABLE, Problem
from gateway.http.schemas import ClusterStatus, Healthy, Leases, Ready
from gateway.http.schemas import NodeStatus as NodePicture
from gateway.readiness import unknown_condition
from gateway.settings import Settings

_NO_STORE = {"cache-control": "no-store"}


class StatusEndpoints:
    """The status endpoints."""

    def __init__(
        self, cluster: Cluster, settings: Settings, registry: CollectorRegistry, node: str
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._registry = registry
        self._node = node

    async def cluster(self, request: Request) -> Response:
        """The cluster's state as this gateway knows it."""
        return JSONResponse(await self.status(), headers=_NO_STORE)

    async def status(self) -> ClusterStatus:
        """The same, as JSON. Raises `Problem`."""
        survey = await self._cluster.survey()
        condition = self._cluster.condition(survey)
        return {
            "cluster": survey.cluster,
            "gateway": self._node,
            "ready": condition.ready,
            "condition": condition.as_json(),
            "silent_ms": survey.silent_ms,
            "leader": survey.leader,
            "session": survey.session,
            "view": None if survey.view is None else survey.view.model_dump(mode="json"),
            **members_json(survey),
            "leases": leases_json(survey, self._settings.lease_ms),
            "nodes": nodes_json(survey),
            "limits": {
                "greatest_file_bytes": self._settings.greatest_file_bytes,
                "inline_bytes": self._settings.inline_bytes,
                "chunk_bytes": self._settings.chunk_bytes,
            },
        }

    async def result(self, request: Request) -> Response:
        """The result of a write."""
        name = request.path_params["request"]
        session, _, sequence = name.rpartition("-")
        digits = sequence.isascii() and sequence.isdecimal() and len(sequence) < 19
        if not (session and digits and int(sequence) <= COUNT_MAX):
            raise Problem(NOT_FOUND, f"{name!a} is not the id of a request")
        asked = ReadRequest(number=0, what="result", session=session, sequence=int(sequence))
        try:
            reply = (await self._cluster.read(caller_of(request.scope), asked)).reply
        except Problem as problem:
            if problem.kind is not FORBIDDEN:
                raise
            # Another's request: not even that it exists is for the caller to know.
            raise Problem(NOT_FOUND, f"{name!a} is no request of yours") from None
        headers = {**_NO_STORE, "synod-slot": str(reply.applied)}
        if reply.status == "running":
            return JSONResponse({"request": name, "state": "running"}, headers=headers)
        if reply.status == "forgotten":
            raise Problem(FORGOTTEN, f"the result of {name} is no longer kept", headers=headers)
        outcome = reply.outcome
        if outcome is None:
            raise Problem(
                NOT_FOUND,
                _absence_reason(name, reply.status, reply.applied),
                headers=headers,
                fields={"slot": reply.applied},
            )
        body = {"request": name, "state": "decided", "result": outcome.status}
        body |= outcome.model_dump(mode="json", exclude={"status", "token"}, exclude_none=True)
        if outcome.status == "done":
            body["etag"] = outcome.etag
        return JSONResponse(body, headers=headers)

    async def healthz(self, request: Request) -> Response:
        """200 while this node is alive and did not halt."""
        await self._cluster.survey()
        body: Healthy = {"status": "ok", "node": self._node}
        return JSONResponse(body, headers=_NO_STORE)

    async def readyz(self, request: Request) -> Response:
        """200 if a write could be done now; `?for=reads`: if a linearizable read could."""
        asked_of_reads = READY_FOR.of(query_fields(request.scope)) == "reads"
        leader = None
        try:
            survey = await self._cluster.survey()
            leader, condition = survey.leader, self._cluster.condition(survey)
        except Problem as problem:
            condition = unknown_condition(problem.fields["reason"])
        reasons = condition.read_reasons if asked_of_reads else condition.reasons
        if reasons:
            raise Problem(
                UNAVAILABLE,
                "; ".join(reason.detail for reason in reasons),
                headers=RETRY_AFTER,
                fields={"reasons": [asdict(reason) for reason in reasons]},
            )
        body: Ready = {"status": "ready", "node": self._node, "leader": leader}
        return JSONResponse(body, status_code=HTTPStatus.OK, headers=_NO_STORE)

    async def metrics(self, request: Request) -> Response:
        """All metrics of this process, for Prometheus."""
        return Response(
            generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )


def _absence_reason(name: str, status: ReadStatus, slot: int) -> str:
    """What is certain about a request without a result; nothing if its session has expired."""
    if status == "absent":
        return (
            f"{name} did not happen and never will: at slot {slot} its session is closed, and "
            "nothing of this number was decided in it"
        )
    return (
        f"the cluster knows no session of {name} at slot {slot}: if there was one, it has expired, "
        "and what became of its requests is not known"
    )


def nodes_json(survey: Surveyed) -> list[NodePicture]:
    """Every expected node, and the others that were seen, in the order of roles and numbers."""
    expected = [name for names in survey.expected.values() for name in names]
    others = sorted(set(survey.nodes) - set(expected) - outsiders(survey))
    return [_node_json(name, survey.nodes.get(name), survey) for name in expected + others]


def _node_json(name: str, seen: NodeReport | None, survey: Surveyed) -> NodePicture:
    view = survey.view
    about: NodePicture = {
        "name": name,
        "role": role_of(name),
        "seen": seen is not None,
        "leader": name == survey.leader,
        "coordinator": view is not None and name == view.coordinator,
        "in_view": view is not None and any(member.name == name for member in view.stores),
    }
    if seen is None:
        return about
    heartbeat = seen.heartbeat
    if about["role"] == "acceptor" and survey.acceptors is not None:
        about["votes"] = survey.acceptors.membership.has_active((name, seen.disk))
    return {
        **about,
        "age_ms": seen.age_ms,
        "disk": seen.disk,
        "incarnation": seen.incarnation,
        "applied": heartbeat.applied,
        "durable": heartbeat.durable,
        "chosen_through": heartbeat.chosen_through,
        "state_hash": heartbeat.state_hash,
        "epoch": None if heartbeat.view is None else heartbeat.view.epoch,
        "ballot": None if heartbeat.ballot is None else ballot_text(heartbeat.ballot),
        "pending": heartbeat.pending,
        "in_doubt": heartbeat.in_doubt,
        "journal_commits": heartbeat.journal_commits,
        "halted": heartbeat.halted,
    }


def leases_json(survey: Surveyed, lease_ms: int) -> Leases | None:
    """The leader's lease and the read leases that it granted, from its latest heartbeat."""
    seen = survey.leases
    if seen is None:
        return None
    return {
        "ballot": ballot_text(seen.ballot),
        "holder": seen.ballot.node,
        "age_ms": seen.age_ms,
        "lease_ms": lease_ms,
        "left_ms": max(0, seen.left_ms - seen.age_ms),
        "read_left_ms": {
            store: max(0, left - seen.age_ms) for store, left in seen.read_left_ms.items()
        },
    }


def ballot_text(ballot: Ballot) -> str:
    """A ballot in readable form: round, then proposer."""
    return f"{ballot.round}.{ballot.proposer}"
