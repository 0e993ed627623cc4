"""A node's own small door: metrics for Prometheus, and whether the node is well.

Gateways have the same at their usual address; this is for the processes without one.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.http.problems import UNAVAILABLE, Problem


def node_app(name: str, registry: CollectorRegistry, trouble: Callable[[], str]) -> Starlette:
    """The application: `/metrics`, and `/healthz`, which is 503 with the reason in `trouble`."""

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def healthz(request: Request) -> Response:
        reason = trouble()
        if reason:
            return Problem(UNAVAILABLE, reason).response()
        return JSONResponse({"status": "ok", "node": name}, headers={"cache-control": "no-store"})

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz)])
