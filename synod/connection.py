"""How a client reaches its gateway: the address, the token, proxies and certificates of the
environment, and what each failure on the way there means.
"""

import contextlib
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import httpx

from synod.errors import (
    InvalidRequest,
    Misconfigured,
    NotSent,
    ServerFailure,
    SynodError,
    Unreachable,
)
from synod.tls import ClientTls, causes, refusal_of

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_TOKEN = re.compile(r"[!-~]+")


class Address(NamedTuple):
    """A gateway's URL, and the token to present to it."""

    url: str
    token: str
    shown: str
    """The URL without a password, for messages."""
    tls: ClientTls

    @classmethod
    def of(cls, url: str, token: str | None, tls: ClientTls) -> Self:
        """Raises `Misconfigured`."""
        try:
            parsed = httpx.URL(url.rstrip("/"))
            shown = str(parsed.copy_with(userinfo=b""))
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise Misconfigured(f"{_bare(url)} is no URL: {error} (--url or SYNOD_URL)") from None
        if parsed.scheme not in ("http", "https") or not _may_be_host(parsed):
            raise Misconfigured(
                f"{_bare(url)} is no address of a gateway: write http://HOST:PORT "
                "(--url or SYNOD_URL)"
            )
        if parsed.query or parsed.fragment:
            raise Misconfigured(
                f"{shown} is no address of a gateway: it has a ? or a # (--url or SYNOD_URL)"
            )
        if token is None:
            token = os.environ.get("SYNOD_TOKEN", "")
        if token and not _TOKEN.fullmatch(token):
            raise Misconfigured(
                "the token (SYNOD_TOKEN) can't be sent: it may have printable ASCII characters "
                "only, without spaces and line ends"
            )
        return cls(str(parsed), token, shown, tls)

    def client(self, **options: Any) -> httpx.AsyncClient:
        """An HTTP client of this address, to be made within `connecting`."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {self.token}"} if self.token else None,
            # Certificates take 20 ms to load, which a plain connection need not wait for.
            verify=self.url.startswith("https:")
            and self.tls.context(trust_env=self._leaves_this_machine),
            trust_env=self._leaves_this_machine,
            **options,
        )

    def error_of(self, failure: httpx.HTTPError) -> SynodError:
        """The error to raise for a failed request or connection."""
        reason = reason_of(failure)
        if why := refusal_of(failure):
            told = f"no TLS connection with {self.shown}: {why}"
            if isinstance(failure, httpx.ConnectError):
                return Misconfigured(told)
            # With TLS 1.3 a server refuses a certificate when the client speaks already.
            return Unreachable(told)
        if isinstance(failure, httpx.UnsupportedProtocol):
            return Misconfigured(f"{self.shown} is no address of a gateway: {reason}")
        if isinstance(failure, httpx.ProxyError):
            return NotSent(f"the proxy before {self.shown} refuses: {reason}{self._by_proxy}")
        if isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
            return NotSent(self._not_connected(failure, reason) + self._by_proxy)
        if isinstance(failure, httpx.LocalProtocolError):
            return InvalidRequest(f"the request can't be sent, so nothing was: {reason}")
        if isinstance(failure, httpx.TransportError):
            return Unreachable(f"no answer from {self.shown}: {reason}{self._by_proxy}")
        return ServerFailure(f"the response from {self.shown} can't be read: {reason}")

    def _not_connected(self, failure: httpx.HTTPError, reason: str) -> str:
        reasons = list(causes(failure))
        if any(isinstance(cause, ssl.SSLError) for cause in reasons):
            return f"no TLS connection with {self.shown}: {reason}"
        if any(isinstance(cause, socket.gaierror) for cause in reasons):
            return f"the host of {self.shown} is not known: {reason} (--url or SYNOD_URL)"
        if isinstance(failure, httpx.TimeoutException):
            return f"no connection with {self.shown} in time (--url or SYNOD_URL)"
        return (
            f"nothing answers at {self.shown}: is `synod up` running there? "
            "(--url or SYNOD_URL names another place)"
        )

    @property
    def _by_proxy(self) -> str:
        names = _set_in_environment(_PROXIES[:3]) if self._leaves_this_machine else ""
        return f"; by the proxy of {names}" if names else ""

    @property
    def _leaves_this_machine(self) -> bool:
        """Whether requests leave this machine; those that don't must bypass its proxy."""
        host = httpx.URL(self.url).host
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"


@contextlib.contextmanager
def connecting(address: Address) -> Iterator[None]:
    """Wraps the making of an HTTP client, which reads the environment. Raises `Misconfigured`."""
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        names = _set_in_environment(_CERTIFICATES) or "of this machine"
        reason = error.strerror or str(error)
        raise Misconfigured(f"the certificates ({names}) can't be read: {reason}") from None
    except (ImportError, ValueError, TypeError, httpx.InvalidURL) as error:
        names = _set_in_environment(_PROXIES) or "of this machine"
        reason = str(error).partition(". ")[0]
        raise Misconfigured(
            f"the proxy settings ({names}) can't be used for {address.shown}: {reason}"
        ) from None


def reason_of(failure: Exception) -> str:
    """Why a request failed, in one line; the class's name if the failure has no text."""
    if isinstance(failure, httpx.TimeoutException):
        return "it took too long"
    text = " ".join(str(failure).split())
    return text or type(failure).__name__


def _may_be_host(url: httpx.URL) -> bool:
    """Whether the host could be resolved and the port connected to."""
    host = url.raw_host.decode("ascii", "replace")
    labels = host.split(".")
    return (
        (":" in host or _HOST.fullmatch(host) is not None)
        and all(len(label) <= 63 for label in labels)
        and (url.port is None or 0 < url.port < 65536)
    )


def _set_in_environment(names: tuple[str, ...]) -> str:
    wanted = {name.lower() for name in names}
    return ", ".join(name for name in os.environ if name.lower() in wanted and os.environ[name])


def _bare(url: str) -> str:
    """A malformed address for a message, without the part that may be a password."""
    return ascii(re.sub(r"//[^/]*@", "//", url[:200]))
