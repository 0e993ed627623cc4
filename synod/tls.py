"""TLS of a client: which CA it trusts, which certificate it shows, and what each failure means."""

import os
import ssl
from collections.abc import Iterator
from typing import NamedTuple, Self

import httpx

from synod.errors import Misconfigured

CA_CERT, CLIENT_CERT, CLIENT_KEY = "SYNOD_CA_CERT", "SYNOD_CLIENT_CERT", "SYNOD_CLIENT_KEY"

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

_NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"))


class ClientTls(NamedTuple):
    """PEM files; an empty name stands for none."""

    ca_cert: str
    """The CA to trust in place of those of this machine."""
    client_cert: str
    client_key: str
    """Empty: the key is in the file of `client_cert`."""

    @classmethod
    def of(cls, ca_cert: str | None, client_cert: str | None, client_key: str | None) -> Self:
        """What is `None` is taken from the environment."""
        given = ((CA_CERT, ca_cert), (CLIENT_CERT, client_cert), (CLIENT_KEY, client_key))
        return cls(
            *(
                os.environ.get(name, "") if value is None else os.fspath(value)
                for name, value in given
            )
        )

    def context(self, *, trust_env: bool) -> ssl.SSLContext:
        """`trust_env`: without a CA of its own, `SSL_CERT_FILE` and `SSL_CERT_DIR` count.

        Raises `Misconfigured`, or `OSError` for the certificates of the environment.
        """
        if self.client_key and not self.client_cert:
            raise Misconfigured(f"{CLIENT_KEY} is set, but {CLIENT_CERT} is not")
        if self.ca_cert:
            _check_readable(f"--ca-cert or {CA_CERT}", self.ca_cert)
            try:
                context = ssl.create_default_context(cafile=self.ca_cert)
            except ssl.SSLError:
                raise Misconfigured(
                    f"{self.ca_cert} (--ca-cert or {CA_CERT}) holds no certificate in PEM"
                ) from None
        else:
            context = httpx.create_ssl_context(trust_env=trust_env)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.client_cert:
            self._show(context)
        return context

    def _show(self, context: ssl.SSLContext) -> None:
        key = self.client_key or self.client_cert
        _check_readable(CLIENT_CERT, self.client_cert)
        _check_readable(CLIENT_KEY, key)

        def encrypted() -> str:
            # OpenSSL would ask at the terminal.
            raise Misconfigured(f"{key} ({CLIENT_KEY}) is encrypted; write it without a passphrase")

        try:
            context.load_cert_chain(self.client_cert, self.client_key or None, password=encrypted)
        except ssl.SSLError:
            raise Misconfigured(
                f"{self.client_cert} and {key} ({CLIENT_CERT}, {CLIENT_KEY}) are not a certificate "
                "and its private key in PEM"
            ) from None


def refusal_of(failure: BaseException) -> str:
    """What a failed request says about TLS, and what to do; empty if TLS did not fail.

    It stays so until somebody changes a certificate or a setting.
    """
    for error in causes(failure):
        if isinstance(error, ssl.SSLCertVerificationError):
            return _why_not_trusted(error)
        if isinstance(error, ssl.SSLError):
            if error.reason in _WANTS_CERTIFICATE:
                return (
                    "it asks for a client certificate that it trusts: set "
                    f"{CLIENT_CERT} and {CLIENT_KEY}"
                )
            if error.reason in _NO_TLS:
                return "it speaks no TLS: write http:// in place of https://, or another port"
    return ""


def _why_not_trusted(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate, or its CA's, has expired: have it renewed there"
    if error.verify_code == _NOT_YET_VALID:
        return "its certificate is not valid yet: check its dates and the clock of this machine"
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return (
            "its certificate is for another name: use a name of the certificate in --url or "
            f"SYNOD_URL ({error.verify_message.rstrip('.')})"
        )
    return (
        "its certificate is signed by no CA that is trusted here: name the CA's file with "
        f"--ca-cert or {CA_CERT} ({error.verify_message})"
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came from, each once: the chain may be a circle."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left.append(one.__cause__ or one.__context__)
        if isinstance(one, BaseExceptionGroup):
            left.extend(reversed(one.exceptions))


def _check_readable(setting: str, file: str) -> None:
    # OpenSSL's own error does not name the file.
    try:
        with open(file, "rb"):
            pass
    except OSError as error:
        raise Misconfigured(f"{file} ({setting}) can't be read: {error.strerror}") from None
