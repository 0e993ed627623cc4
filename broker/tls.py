"""TLS to a broker: which certificates are trusted and shown, and what a failure means.

The files are read at each connection, so renewed ones need no restart.
"""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_EXPIRED, _NOT_YET_VALID, _OTHER_HOST, _OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED, …_CERT_NOT_YET_VALID, …_HOSTNAME_MISMATCH and
…_IP_ADDRESS_MISMATCH.
"""

_WANTS_CERTIFICATE = frozenset(
    (
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "TLSV1_ALERT_UNKNOWN_CA",
    )
)


class TlsFilesUnusable(OSError):
    """A certificate or key of the settings can't be used; the text says which and why."""


class TlsRefusal(NamedTuple):
    """Why there is no TLS connection, and what to do."""

    fact: str
    advice: str

    def __str__(self) -> str:
        return f"{self.fact}: {self.advice}"


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """The PEM files of the settings `broker_ca`, `broker_cert` and `broker_key`.

    The host name is always checked, and nothing switches verification off.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For one connection. Raises `TlsFilesUnusable`."""
        files = {"broker_ca": self.ca, "broker_cert": self.cert, "broker_key": self.key}
        for setting, file in files.items():
            if file is not None:
                _check_readable(setting, file)
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError as error:
            raise TlsFilesUnusable(
                f"broker_ca: {self.ca} holds no certificate in PEM: {_said(error)}"
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            self._show(context, self.cert)
        return context

    def context_for(self, url: str) -> ssl.SSLContext | None:
        """The context if `url` is of `amqps://`. Raises `TlsFilesUnusable`."""
        return self.context() if url.startswith("amqps:") else None

    def _show(self, context: ssl.SSLContext, cert: Path) -> None:
        def encrypted() -> str:
            # OpenSSL would ask at the terminal.
            raise TlsFilesUnusable(
                f"broker_key: {self.key or cert} is encrypted; write it without a passphrase"
            )

        try:
            context.load_cert_chain(cert, self.key, password=encrypted)
        except ssl.SSLError as error:
            raise TlsFilesUnusable(
                f"broker_cert, broker_key: {cert} and {self.key or cert} are not a certificate and "
                f"its private key in PEM: {_said(error)}"
            ) from None


def refusal_of(failure: BaseException) -> TlsRefusal | None:
    """What a failed connection says about TLS; `None` if TLS did not fail.

    It is final until an operator acts: a repetition would fail in the same way.
    """
    for error in _causes(failure):
        if isinstance(error, TlsFilesUnusable):
            return TlsRefusal(f"{error}", "correct the setting, or the file")
        if isinstance(error, ssl.SSLCertVerificationError):
            return _not_trusted(error)
        if isinstance(error, ssl.SSLError):
            if error.reason in _WANTS_CERTIFICATE:
                return TlsRefusal(
                    f"it asks for a client certificate that it trusts ({_said(error)})",
                    "set broker_cert and broker_key",
                )
            return TlsRefusal(
                f"no TLS connection ({_said(error)})",
                "check that `broker` names the port of TLS (5671), and that TLS 1.2 or newer is "
                "spoken there",
            )
    return None


def _not_trusted(error: ssl.SSLCertVerificationError) -> TlsRefusal:
    if error.verify_code == _EXPIRED:
        return TlsRefusal(
            "its certificate, or its CA's, has expired", "renew it on the broker and restart that"
        )
    if error.verify_code == _NOT_YET_VALID:
        return TlsRefusal(
            "its certificate is not valid yet", "check its dates and the clock of this host"
        )
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return TlsRefusal(
            f"its certificate is for another name ({error.verify_message.rstrip('.')})",
            "write a name of the certificate in `broker`, or make one for this name",
        )
    return TlsRefusal(
        f"its certificate is signed by no CA that is trusted here ({error.verify_message})",
        "name the CA's file in broker_ca",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # The chain may be a circle: aiormq raises a connection's one error in many places, each time
    # while another of its own is handled.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _check_readable(setting: str, file: Path) -> None:
    # OpenSSL's own error does not name the file.
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise TlsFilesUnusable(f"{setting}: {file} can't be read: {error.strerror}") from None


def _said(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
