"""The HTTP endpoints of a node that is no gateway: `/metrics` and `/healthz`.

A gateway serves the same two routes at its usual address.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.http.problems import UNAVAILABLE, Problem


def node_app(
    name: str, registry: CollectorRegistry, unhealthy_reason: Callable[[], str]
) -> Starlette:
    """The ASGI application. `/healthz` answers 503 if `unhealthy_reason` gives a reason."""

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def healthz(request: Request) -> Response:
        reason = unhealthy_reason()
        if reason:
            return Problem(UNAVAILABLE, reason).response()
        return JSONResponse({"status": "ok", "node": name}, headers={"cache-control": "no-store"})

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz)])
