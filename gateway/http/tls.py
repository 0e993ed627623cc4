"""The certificate of a process's HTTP server: how it is read, tried and renewed.

Each new connection gets the context of that moment, so a renewed certificate ends no connection,
and nothing of the former one (its session tickets, its client CA) is valid for new ones.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

_EXPIRED, _NOT_YET_VALID = 10, 9
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""


class TlsUnusable(RuntimeError):
    """A certificate or key can't be used; the text names the setting, the file and the reason."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of the settings `tls_cert`, `tls_key` and `tls_client_ca`.

    The certificate's file may hold the chain above it and, without `key`, its private key. With
    `client_ca` a client must present a certificate that this CA has signed.
    """

    cert: Path
    key: Path | None = None
    client_ca: Path | None = None


class ServerTls:
    """The context for new connections; it is replaced as a whole, or stays as it is."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises `TlsUnusable`. An expired certificate is not refused: see `why_invalid`."""
        self._files = files
        self.context = _context_of(files)

    def reload(self) -> None:
        """Read the files again. Raises `TlsUnusable`, and then nothing has changed."""
        context = _context_of(self._files)
        if reason := _why_invalid(context, self._files.cert):
            raise TlsUnusable(reason)
        self.context = context

    def why_invalid(self) -> str:
        """Why clients will refuse the certificate, such as its age; empty if nothing is known.

        A node that starts with one goes on, because the cluster needs it more than its clients.
        """
        return _why_invalid(self.context, self._files.cert)


def _context_of(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could make the server compute again and again (CVE-2011-1473).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    key = files.key or files.cert
    key_name = "tls_key" if files.key else "tls_cert"

    def encrypted() -> str:
        # OpenSSL would ask at the terminal.
        raise TlsUnusable(
            f"{key_name}: {key} is encrypted; write it without a passphrase (openssl pkey -in …), "
            "readable by this user only"
        )

    _readable("tls_cert", files.cert)
    _readable(key_name, key)
    try:
        context.load_cert_chain(files.cert, files.key, password=encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = f"{key_name}: {key} is not the private key of the certificate {files.cert}"
        else:
            reason = (
                f"tls_cert, tls_key: {files.cert} and {key} are not a certificate and its private "
                f"key in PEM: {_said(error)}"
            )
        raise TlsUnusable(reason) from None
    if files.client_ca is not None:
        _readable("tls_client_ca", files.client_ca)
        try:
            context.load_verify_locations(cafile=files.client_ca)
        except ssl.SSLError as error:
            raise TlsUnusable(
                f"tls_client_ca: {files.client_ca} holds no certificate in PEM: {_said(error)}"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _readable(setting: str, file: Path) -> None:
    """Raises `TlsUnusable`: OpenSSL's own error does not name the file."""
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise TlsUnusable(f"{setting}: {file} can't be read: {error.strerror}") from None


def _why_invalid(context: ssl.SSLContext, cert: Path) -> str:
    """Why a client that trusts just this certificate would refuse it now; empty if it would not.

    A handshake in memory tells, as `ssl` reads no dates of a certificate without one.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_context.load_verify_locations(cafile=cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            return f"tls_cert: {cert} has expired; renew it, and send SIGHUP"
        if error.verify_code == _NOT_YET_VALID:
            return f"tls_cert: {cert} is not valid yet; check its dates and this host's clock"
        return f"tls_cert: {cert} is not for a server: {error.verify_message}"
    return ""


def _said(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
