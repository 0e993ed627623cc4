"""The socket at which a process serves HTTP, before there is a server for it."""

import errno
import socket

_UNSENT_BYTES_MAX = 128 * 1024
"""What the kernel holds for a reader beyond what is on its way to it. By default that is megabytes,
so that a slow reader looks like a fast one for a while, and holds them."""


class PortInUse(RuntimeError):
    """Something else listens there already."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `PortInUse`, or `OSError` for anything else."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux and macOS; connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES_MAX)
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
