"""Starlette on uvicorn and nothing else, as a measure of what HTTP itself costs here.

    python -m chaos.bench.bare_starlette PORT

`GET /SIZE/ANY` answers with so many bytes, `PUT` reads a body; both hold nothing.
"""

import functools
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@functools.lru_cache(maxsize=4)
def _content(size_bytes: int) -> bytes:
    return bytes(size_bytes)


async def _get(request: Request) -> Response:
    return Response(_content(request.path_params["size_bytes"]))


async def _put(request: Request) -> Response:
    async for _ in request.stream():
        pass
    return Response(status_code=204)


def main() -> None:
    """Serve until a signal ends it."""
    routes = [
        Route("/{size_bytes:int}/{key:path}", _get, methods=["GET"]),
        Route("/{size_bytes:int}/{key:path}", _put, methods=["PUT"]),
    ]
    uvicorn.run(
        Starlette(routes=routes),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
