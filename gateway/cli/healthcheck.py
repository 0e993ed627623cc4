"""Asks a node of this container whether it is healthy; for a container's health check.

::

    python -m gateway.cli.healthcheck 9100 /healthz

exits with 0 if the response is 200, else it prints the response and exits with 1. It runs every few
seconds beside every node, so it imports next to nothing.

It speaks TLS if the node does (`SYNOD_TLS_CERT`). It sends no secret and stays on this machine, so
it verifies no certificate; it shows that of `SYNOD_CLIENT_CERT` or else the node's own, which a
node with `tls_client_ca` asks for.
"""

import os
import socket
import sys

_PATIENCE_S = 4.0


def ask(port: int, path: str) -> bytes:
    """The whole response of the server at `port` on this machine. Raises `OSError`."""
    with _connected(port) as connection:
        head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode())
        pieces = []
        while piece := connection.recv(65_536):
            pieces.append(piece)
    return b"".join(pieces)


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
    own = os.environ.get("SYNOD_TLS_CERT")
    if not own:
        return connection
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if os.environ.get("SYNOD_TLS_CLIENT_CA"):
        cert = os.environ.get("SYNOD_CLIENT_CERT")
        key = os.environ.get("SYNOD_CLIENT_KEY" if cert else "SYNOD_TLS_KEY")
        context.load_cert_chain(cert or own, key or None)
    return context.wrap_socket(connection)


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 2 or not arguments[0].isdecimal():
        print(__doc__, file=sys.stderr)
        return 2
    try:
        answer = ask(int(arguments[0]), arguments[1])
    except OSError as error:
        print(f"nothing answers at port {arguments[0]}: {error}", file=sys.stderr)
        return 1
    if answer.startswith(b"HTTP/1.1 200 "):
        return 0
    print(answer.decode(errors="replace"), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
