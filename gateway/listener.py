"""The socket at which a process serves HTTP, before there is a server for it."""

import errno
import socket


class PortInUse(RuntimeError):
    """Something else listens there already."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `PortInUse`, or `OSError` for anything else."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use; end what listens there or choose another "
                "with --port"
            ) from None
        raise
    listener.setblocking(False)
    return listener
