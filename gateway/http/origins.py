"""Detects requests that a web page of another origin causes (cross-site requests, DNS rebinding).

A browser sends the name that it requested (`Host`), and with a request that may change something
also the page that caused it (`Origin`, `Sec-Fetch-Site`); no script can forge these.
"""

import ipaddress
from functools import lru_cache

_NAME_MAX = 255
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_OWN_SITES = frozenset(("same-origin", "none"))
"""`none`: a user, not a page. `same-site` is another port of this host, or a sibling domain."""


def is_loopback_name(host: str) -> bool:
    """Whether a Host header names this machine independently of DNS, with any port."""
    return len(host) <= _NAME_MAX and _is_loopback_name(host)


@lru_cache(maxsize=64)
def _is_loopback_name(host: str) -> bool:
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
        port = port[1:]
    else:
        name, _, port = host.partition(":")
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 5):
        return False
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_foreign(origin: str, site: str, host: str) -> bool:
    """Whether `Origin` or `Sec-Fetch-Site` names a page that is not from `host`; an empty text is a
    missing header.
    """
    if site and site.strip().lower() not in _OWN_SITES:
        return True
    if not origin:
        return False
    scheme, separator, authority = origin.strip().lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    if not separator or not authority or port is None:
        return True  # Also `null`, the origin of a sandboxed page, for example.
    # The scheme is not compared: a proxy before the gateway may speak TLS.
    return authority.removesuffix(port) != host.strip().lower().removesuffix(port)
