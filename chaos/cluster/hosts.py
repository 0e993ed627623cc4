"""Where processes run: on this machine, or in a network namespace of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NetworkHost:
    """An address at which processes listen, and how a process gets there."""

    address: str
    enter: tuple[str, ...] = ()
    """The words before a command that run it there; the command keeps its process id."""

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine, outside of namespaces, reach it."""
        return self == LOOPBACK


LOOPBACK = NetworkHost("127.0.0.1")
