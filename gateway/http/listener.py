"""The listening socket of a process's HTTP server, opened before the server starts."""

import errno
import socket

_UNSENT_BYTES_MAX = 128 * 1024
"""How much unsent data the kernel buffers for a reader. By default that is megabytes, so a slow
reader holds them and looks like a fast one for a while."""


class PortInUse(RuntimeError):
    """Another process listens at this address."""


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
