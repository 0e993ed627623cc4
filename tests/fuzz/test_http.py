"""Almost valid HTTP, and valid HTTP with odd values: each gets an answer, none a 500."""

import json
import re
import socket

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaos.cluster.processes import Daemon
from tests.fuzz.hostile import garbled

PATIENCE_S = 10.0

METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "G\tET", ""]
TARGETS = [
    "/",
    "*",
    "//",
    "/v1/files/a",
    "/v1/files/a?b=%ff",
    "/v1/files/%00",
    "/v1/files/%ed%a0%80",
    "/v1/directories/",
    "/v1/directories/?limit=99999999999999999999&after=%ff",
    "/v1/directories/?limit=-1&recursive=maybe",
    "/v1/move",
    "/v1/copy",
    "/v1/transactions",
    "/v1/log?before=1e9&limit=0",
    "/v1/log?before=999999999999999999999",
    "/v1/requests",
    "/v1/requests/x-99999999999999999999999",
    "/v1/requests/%00-1",
    "/v1/traces/x",
    "/v1/chunks/" + "0" * 64,
    "/v1/chunks/%2e%2e",
    "/v1/backup",
    "/v1/backup/rows?slot=-1&page=99999999999999999999",
    "/v1/login",
    "/v1/cluster",
    "/readyz",
    "/metrics",
    "/static/../pyproject.toml",
    "/static/%2e%2e/%2e%2e/app.py",
    "http://evil.example/v1/files/a",
    "/\x00",
    "/\xff",
]
NAMES = [
    "Host",
    "Range",
    "If-Range",
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "Content-Type",
    "Content-Encoding",
    "Expect",
    "Idempotency-Key",
    "Last-Modified",
    "Synod-Modified-Ms",
    "Synod-Executable",
    "Synod-Meta-A",
    "Authorization",
    "Cookie",
    "Origin",
    "Accept",
    "Last-Event-ID",
    "Connection",
    "X y",
]
VALUES = [
    "",
    "*",
    "x",
    '"1-0"',
    'W/"1-0"',
    '"1-0", *',
    "bytes=0-",
    "bytes=-0",
    "bytes=99999999999999999999-",
    "bytes=5-1,0-0,-1",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 99 Jan 99999 00:00:00 GMT",
    "-1",
    "1",
    "99999999999999999999",
    "true",
    "application/json",
    "text/html; charset=\x80",
    "gzip",
    "100-continue",
    "Bearer \xff",
    "a=b; synod_session=\x01",
    "close",
    "keep-alive, upgrade",
    "http://evil.example",
    "\xff\xfe",
]
BODIES = [
    b"",
    b"x",
    b"{}",
    b"[]",
    b"null",
    b"{",
    b"\xff",
    b'{"source": "a", "target": "b"}',
    b'{"source": "\\ud800", "target": 1}',
    b'{"steps": []}',
    b'{"steps": [{"op": "put", "path": "a", "text": "\\u0000", "modified_ms": 1e400}]}',
    b'{"steps": [{"op": "check", "path": "a", "if_match": "W/\\"1-0\\""}]}',
    b'{"steps": [{"op": "put", "path": "a", "text": "x", "content_type": "a\\r\\nb"}]}',
    b'{"token": 5}',
]

SENSIBLE = [
    ("GET", "/v1/files/a"),
    ("HEAD", "/v1/files/a"),
    ("PUT", "/v1/files/a"),
    ("DELETE", "/v1/files/a"),
    ("GET", "/v1/directories/?recursive=true"),
    ("PUT", "/v1/directories/d"),
    ("POST", "/v1/transactions"),
    ("POST", "/v1/transactions"),
    ("POST", "/v1/transactions"),
    ("POST", "/v1/move"),
    ("POST", "/v1/copy"),
    ("POST", "/v1/login"),
    ("POST", "/v1/traces"),
]
DOCUMENTS = [
    {
        "steps": [
            {
                "op": "put",
                "path": "a",
                "text": "x",
                "content_type": "text/plain",
                "modified_ms": 1,
                "executable": True,
                "meta": {"a": "b"},
                "if_none_match": ["1-0"],
            },
            {"op": "check", "path": "a", "if_match": "*"},
            {"op": "move", "source": "a", "target": "b", "overwrite": True},
            {"op": "copy", "source": "b", "target": "a"},
            {"op": "mkdir", "path": "d"},
            {"op": "rmdir", "path": "d", "recursive": True},
        ]
    },
    {"steps": [{"op": "put", "path": "a", "base64": "eA==", "content_type": "a/b", "meta": {}}]},
    {"source": "a", "target": "c", "overwrite": True, "if_match": "*", "target_if_match": ["1-0"]},
    {"token": "x"},
    {"seconds": 1},
    {"mode": "sampled"},
]

# Long values are expanded after they are drawn, so that a failure can be printed.
long_target = st.just("x/").map(lambda part: "/v1/files/" + part * 3_000)
long_value = st.just("y").map(lambda part: part * 9_000)
long_body = st.sampled_from([b"[", b"x", b'{"steps":[']).map(lambda part: part * 9_000)

asked_for = st.sampled_from(SENSIBLE) | st.tuples(
    st.sampled_from(METHODS), st.sampled_from(TARGETS) | long_target
)
documents = st.sampled_from(DOCUMENTS).flatmap(garbled).map(lambda one: json.dumps(one).encode())

requests = st.tuples(
    asked_for,
    st.sampled_from(["HTTP/1.1"] * 4 + ["HTTP/1.0", "HTTP/2.0", "http/1.1", ""]),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | long_value), max_size=5),
    documents | documents | st.sampled_from(BODIES) | long_body,
    st.sampled_from(["length", "length", "length", "chunked", "none", "short", "both", "trailers"]),
)

Damages = list[tuple[int, bytes, int]]
some_damage: st.SearchStrategy[Damages] = st.lists(
    st.tuples(st.integers(0, 400), st.binary(max_size=3), st.integers(0, 4)), max_size=2
)
damages = st.builds(Damages) | some_damage

Asked = tuple[tuple[str, str], str, list[tuple[str, str]], bytes, str]


def written(request: Asked) -> bytes:
    """The request as bytes; its last part is the way in which it gives the body's length."""
    (method, target), version, headers, body, framing = request
    lines = [f"{method} {target} {version}", "Host: localhost"]
    if method == "POST":
        lines.append("Content-Type: application/json")
    lines += [f"{name}: {value}" for name, value in headers]
    chunked = b"%x\r\n%b\r\n0\r\n" % (len(body), body) if body else b"0\r\n"
    match framing:
        case "length" | "both":
            lines.append(f"Content-Length: {len(body)}")
        case "short":
            lines.append(f"Content-Length: {len(body) + 7}")
    if framing in ("chunked", "both", "trailers"):
        lines.append("Transfer-Encoding: chunked")
        body = chunked + (b"x: y\r\n" * 50 if framing == "trailers" else b"") + b"\r\n"
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def damaged(data: bytes, damages: Damages) -> bytes:
    """The bytes with some replaced."""
    for position, new, removed in damages:
        data = data[:position] + new + data[position + removed :]
    return data


def answer(port: int, data: bytes) -> bytes:
    """The answer until the server closes the connection. Raises `TimeoutError`."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while piece := connection.recv(65536):
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            return b""  # The server has closed, having read enough.
    return received


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(requests, damages)
def test_whatever_is_sent_is_answered_and_is_never_a_500(
    embedded: tuple[Daemon, int],
    asked: Asked,
    damages: Damages,
) -> None:
    up, port = embedded
    sent = damaged(written(asked), damages)

    received = answer(port, sent)

    statuses = [int(number) for number in re.findall(rb"(?m)^HTTP/1\.1 (\d{3}) ", received)]
    assert not [status for status in statuses if status >= 500 and status != 503], received
    assert not received or received.startswith(b"HTTP/1.1 "), received[:200]
    assert up.runs


pieces_of_http = st.sampled_from(
    [
        *(b"\r\n", b"\r\n\r\n", b"\n", b" ", b":", b"\x00", b"\xff" * 9, b"GET / HTTP/1.1\r\n"),
        *(b"Host: localhost\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n", b"0\r\n\r\n"),
        *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        *(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"PUT /v1/files/a HTTP/1.1\r\n"),
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(pieces_of_http | pieces_of_http | st.binary(max_size=200), max_size=12))
def test_bytes_that_are_hardly_http_end_the_connection_and_nothing_else(
    embedded: tuple[Daemon, int], sent: list[bytes]
) -> None:
    up, port = embedded
    received = answer(port, b"".join(sent))
    assert not received or received.startswith(b"HTTP/1.1 "), received[:200]
    statuses = [int(number) for number in re.findall(rb"(?m)^HTTP/1\.1 (\d{3}) ", received)]
    assert not [status for status in statuses if status >= 500 and status != 503], received
    assert up.runs


def test_the_process_still_serves_after_all_hostile_requests(embedded: tuple[Daemon, int]) -> None:
    """Given all requests before, then a write and a read are served, and no traceback is logged."""
    up, port = embedded
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        assert client.put("/v1/files/after/all", content=b"x").status_code in (200, 201)
        assert client.get("/v1/files/after/all").content == b"x"
        assert client.get("/v1/directories/").status_code == 200
    assert "Traceback" not in up.log.read_text()
