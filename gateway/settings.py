"""The settings: flags over `SYNOD_…` environment over `synod.toml` over defaults.

What the file that `broker_credentials` names sets goes over the environment.

Durations are whole milliseconds, sizes are bytes.
"""

import dataclasses
import ipaddress
import os
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from actors.options import Options
from actors.values import CHUNK_BYTES, INLINE_LIMIT_BYTES
from broker.addresses import split_urls
from broker.maintenance import MaintenanceOptions
from broker.tls import BrokerTls
from broker.topology import BrokerUsers, QueueKind
from gateway.errors import SettingsError

_S = TypeVar("_S", bound="KeySettings")

DEFAULT_FILE = "synod.toml"
MASK = "********"
_TLS_PARAMETERS = ("cafile", "capath", "cadata", "certfile", "keyfile", "no_verify_ssl")
"""What aio-pika would take from a broker's URL; the last one would verify nothing."""
_FILES = (
    "broker_credentials",
    "broker_ca",
    "broker_cert",
    "broker_key",
    "broker_seal_key",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
)
_NEEDED = {"tls_key": "tls_cert", "tls_client_ca": "tls_cert", "broker_key": "broker_cert"}
"""Settings that mean nothing without another one."""
_MIB = 1024 * 1024
_DEFAULTS = Options()
# Greedy up to the last "@": a password that should have been percent-encoded is masked as well.
_USER_INFO = re.compile(r"(?<=://)(?P<user>[^:/@]*)(:.*)?@")

MANIFEST_NAME_BYTES = len(f'"{"0" * 64}",')
"""The size of one chunk's name in a manifest."""


class KeySettings(BaseSettings):
    """The settings about keys; commands that ask a gateway need no others."""

    model_config = SettingsConfigDict(env_prefix="SYNOD_", extra="ignore", frozen=True)

    key_file: Path | None = None
    """The keys of encrypted backups and journals, a line each (`synod keygen`): the first one
    closes, all of them open. Unset, as `key_command`: neither is encrypted."""
    key_command: str | None = None
    """A command that prints such a file; it is run without a shell."""
    backup_sign_key: Path | None = None
    """The private Ed25519 key, in PEM, that signs backups."""
    backup_trusted_keys: Path | None = None
    """The public keys, in PEM, of which one must have signed a backup that is restored."""

    @field_validator(
        "key_file", "key_command", "backup_sign_key", "backup_trusted_keys", mode="before"
    )
    @classmethod
    def _set(cls, value: object) -> object:
        """An empty text is none, as compose files write it."""
        return None if value == "" else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.key_file and self.key_command:
            raise ValueError("key_file and key_command are both set: set one of them")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then credentials, then environment, then the file."""
        toml = TomlConfigSettingsSource(settings_cls, settings_file())
        if "broker_credentials" not in settings_cls.model_fields:
            return init_settings, env_settings, toml
        for source in (init_settings, env_settings, toml):
            if named := source().get("broker_credentials"):
                own = InitSettingsSource(settings_cls, _credentials_in(Path(named)))
                return init_settings, own, env_settings, toml
        return init_settings, env_settings, toml


class Settings(KeySettings):
    """All settings with their defaults.

    A new cluster is founded with those that are also in `actors.values.Constants`, and with the
    numbers of members; a node whose values differ from its cluster's refuses to start.
    """

    model_config = SettingsConfigDict(env_prefix="SYNOD_", extra="forbid", frozen=True)

    cluster: str = Field("synod", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    """The cluster's name, which the names of its queues and exchanges on the broker contain."""
    broker: str = "memory://"
    """`memory://` (one process), or the `amqp://` URL of RabbitMQ; of a cluster of them all URLs,
    separated by commas. Each client starts with a random one and goes on with the next."""
    queues: QueueKind = "named"
    """`named` on one RabbitMQ, `session` on a cluster of them; see `docs/operations.md`."""
    broker_users: BrokerUsers = "shared"
    """`own`: each node is a user of its own at RabbitMQ, as `synod broker init` has made it, and
    takes no message whose sender RabbitMQ does not confirm. The same for all nodes."""
    broker_credentials: Path | None = None
    """The file that `synod broker init` wrote for this node. Its `broker`, `broker_users` and
    `cluster` count, whatever the environment and `synod.toml` say. Unset: theirs."""
    broker_seal_key: Path | None = None
    """A file with a random key of 32 characters or more, the same for all nodes: they seal each
    message with it and take none without, so that the broker can't make or change one."""
    broker_silence_ms: int | None = Field(None, ge=100)
    """After this time without a delivery a node sends a message to itself, to find out whether its
    broker still works. Unset: 5,000, and 1,000 if `broker` names several."""
    broker_ping_timeout_ms: int | None = Field(None, ge=100)
    """A broker that takes longer than this for such a message, and much longer than it took lately,
    is left for the next one. Unset: 5,000, and 1,500 if `broker` names several."""
    broker_ca: Path | None = None
    """The CA, in PEM, that signed the certificates of the brokers, for `amqps://`. Unset: the CAs
    of this machine."""
    broker_cert: Path | None = None
    """The certificate, in PEM, that this process shows to a broker that asks for one."""
    broker_key: Path | None = None
    """Its private key, in PEM without a passphrase. Unset: it is in the file of `broker_cert`."""
    data: Path = Path("synod-data")
    """The folder with one subfolder for each node."""
    encrypt_journals: bool = False
    """Values in new journals are encrypted by the keys, and a journal that is not is refused."""
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """The port at which a node that is no gateway serves /metrics and /healthz, if any."""
    token: SecretStr | None = None
    """Bearer token for HTTP, of 16 characters or more. Without one, HTTP is on loopback only."""
    tls_cert: Path | None = None
    """The certificate, in PEM with its chain, by which HTTP (the API, metrics) is served over TLS.
    SIGHUP reads this and the following two files again."""
    tls_key: Path | None = None
    """Its private key, in PEM without a passphrase. Unset: it is in the file of `tls_cert`."""
    tls_client_ca: Path | None = None
    """A CA, in PEM: only clients with a certificate that it has signed are served."""
    tls_proxy: bool = False
    """A proxy before the gateway speaks TLS with all clients, so cookies are for https only."""
    insecure: bool = False
    """HTTP without TLS may be served on an address that is not loopback: the network between is
    trusted, or a proxy speaks TLS."""

    proposers: int = Field(_DEFAULTS.proposers, ge=1, le=99)
    acceptors: int = Field(_DEFAULTS.acceptors, ge=3, le=99)
    learners: int = Field(_DEFAULTS.learners, ge=2, le=99)
    stores: int = Field(_DEFAULTS.stores, ge=1, le=99)

    heartbeat_ms: int = Field(_DEFAULTS.heartbeat_ms, ge=50)
    leader_heartbeat_ms: int = Field(_DEFAULTS.leader_heartbeat_ms, ge=10)
    lease_ms: int = Field(_DEFAULTS.lease_ms, ge=50)
    lease_margin_ms: int = Field(_DEFAULTS.lease_margin_ms, ge=1)
    sync_ms: int = Field(_DEFAULTS.sync_ms, ge=100)
    request_deadline_ms: int = Field(_DEFAULTS.request_deadline_ms, ge=100)
    """After this time the gateway answers a write with what it knows by then."""
    session_expiry_ms: int = Field(_DEFAULTS.session_expiry_ms, ge=60_000)
    idempotency_expiry_ms: int = Field(_DEFAULTS.idempotency_expiry_ms, ge=60_000)
    chunk_grace_ms: int = Field(_DEFAULTS.chunk_grace_ms, ge=1_000)
    """How long a store keeps an uploaded chunk that nothing uses; gateways renew it meanwhile."""

    log_bytes: int = Field(_DEFAULTS.log_bytes, ge=0)
    """How much of the decided log a learner keeps for nodes that were away for a short time."""
    audit: bool = True
    """Whether commands are chained, so that `synod audit` can show and check them."""
    audit_bytes: int = Field(_DEFAULTS.audit_bytes, ge=0)
    """How much of the audit a learner keeps, in memory and on disk; a record takes 20 to 60 bytes.
    """
    copy_bytes_per_s: int = Field(_DEFAULTS.copy_bytes_per_s, ge=64 * 1024)
    """How fast a store that joins may copy contents from the others."""
    disk_reserve_bytes: int = Field(MaintenanceOptions().disk_reserve_bytes, ge=0)
    """A store whose disk has less space left counts as full; other nodes continue on a part of it.
    """
    scrub_bytes_per_s: int = Field(MaintenanceOptions().scrub_bytes_per_s, ge=1024)
    """How fast a node reads its own journal to find corrupt rows."""

    min_stores: int = Field(2, ge=1)
    """With fewer whole stores in the view, new writes are refused."""
    rowa: Literal["available", "strict"] = "available"
    """`strict`: writes are refused while any store is missing."""
    slot_steps: int = Field(_DEFAULTS.slot_steps, ge=1_000)
    """How many entries the requests of one slot of the log may read or write."""
    slot_bytes: int = Field(_DEFAULTS.slot_bytes, ge=_MIB)
    """How many bytes of names and metadata they may write."""
    path_depth: int = Field(_DEFAULTS.path_depth, ge=8, le=2_048)
    """How many names a path may have."""
    tree_entries: int = Field(_DEFAULTS.tree_entries, ge=1_000)
    """How many files and directories the cluster may hold."""
    tree_bytes: int = Field(_DEFAULTS.tree_bytes, ge=_MIB)
    """The size of their names and metadata; every learner and store holds them in memory."""
    alpha: int = Field(_DEFAULTS.alpha, ge=1, le=1024)
    """How many slots ahead the acceptors of a slot are known; `window_slots` is at most that."""
    window_slots: int = Field(_DEFAULTS.window_slots, ge=1, le=1024)
    batch_commands: int = Field(_DEFAULTS.batch_commands, ge=1)
    batch_bytes: int = Field(_DEFAULTS.batch_bytes, ge=64 * 1024, le=8 * _MIB)

    chunk_bytes: int = Field(CHUNK_BYTES, ge=64 * 1024, le=CHUNK_BYTES)
    inline_bytes: int = Field(INLINE_LIMIT_BYTES, ge=0, le=INLINE_LIMIT_BYTES)
    """Contents up to this size are part of the command."""
    max_file_bytes: int = Field(5 * 1024 * _MIB, ge=0)
    upload_memory_bytes: int = Field(16 * _MIB, ge=4 * _MIB)
    """The memory of all uploads of a gateway together; the same again for downloads. Chunks that
    wait for slow clients go to the disk, up to 64 times as much."""
    body_timeout_ms: int = Field(60_000, ge=100)
    """The gateway gives up an upload or download that makes no progress for this long, or that
    stays below 1 KiB a second for about as long."""
    trace: Literal["off", "sampled", "all"] = "sampled"
    """Which messages nodes record on the events exchange; see `docs/tracing.md`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator(*_FILES, mode="before")
    @classmethod
    def _named(cls, file: object) -> object:
        """An empty name is none, as compose files write it."""
        return None if file == "" else file

    @field_validator("broker", mode="before")
    @classmethod
    def _joined(cls, broker: object) -> object:
        """The file may hold a list."""
        if isinstance(broker, list) and all(isinstance(url, str) for url in broker):
            return ",".join(broker)
        return broker

    @field_validator("broker")
    @classmethod
    def _known_broker(cls, broker: str) -> str:
        urls = split_urls(broker)
        for url in urls or ("",):
            parts = urlsplit(url)
            if parts.scheme not in ("memory", "amqp", "amqps"):
                raise ValueError("it must start with memory://, amqp:// or amqps://")
            if parts.port == 0:  # Reading `port` raises if it is no number.
                raise ValueError("its port is 0, where nothing can listen")
            if parts.scheme != "memory" and not parts.hostname:
                raise ValueError("it names no host, as in amqp://user:password@localhost:5672/")
            if named := [name for name in _TLS_PARAMETERS if name in parse_qs(parts.query, True)]:
                raise ValueError(
                    f"a URL can't set {', '.join(named)}: use broker_ca, broker_cert and "
                    "broker_key, which hold for all brokers; certificates are always verified"
                )
            if parts.scheme == "memory" and len(urls) > 1:
                raise ValueError("memory:// is a broker of its own; it can't be one of several")
        return ",".join(urls)

    @field_validator("token")
    @classmethod
    def _strong(cls, token: SecretStr | None) -> SecretStr | None:
        if token is None or not token.get_secret_value():
            return None
        if not re.fullmatch(r"[!-~]{16,}", token.get_secret_value()):
            raise ValueError("it must have 16 or more printable ASCII characters, without spaces")
        if token.get_secret_value().startswith("syn_"):
            raise ValueError("it must not begin with syn_, as the tokens of users do")
        return token

    @field_validator("host", "metrics_host")
    @classmethod
    def _address(cls, host: str) -> str:
        if host != "localhost":
            ipaddress.ip_address(host)
        return host

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.options()
        for name in ("host", "metrics_host"):
            host = getattr(self, name)
            if self.token is None and not _is_loopback(host):
                raise ValueError(
                    f"{name} is {host!r}: without a token HTTP is served on loopback only. Set a "
                    "token (SYNOD_TOKEN), or use 127.0.0.1, ::1 or localhost"
                )
            if not (self.tls_cert or self.insecure or _is_loopback(host)):
                raise ValueError(
                    f"{name} is {host!r}: without TLS the token would cross the network in clear "
                    "text. Set tls_cert and tls_key (SYNOD_TLS_CERT, SYNOD_TLS_KEY), use 127.0.0.1 "
                    "behind a proxy on this host, or, where the network is trusted or a proxy "
                    "speaks TLS, set insecure = true (SYNOD_INSECURE)"
                )
        for name, needed in _NEEDED.items():
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"{name} is set, but {needed} is not")
        if self.broker_ca or self.broker_cert:
            plain = [url for url in split_urls(self.broker) if url.startswith("amqp:")]
            if plain:
                raise ValueError(
                    f"broker_ca and broker_cert are for amqps://, but {masked_url(plain[0])} has "
                    "no TLS: write amqps:// and the port of TLS (5671)"
                )
        if self.encrypt_journals and not (self.key_file or self.key_command):
            raise ValueError("encrypt_journals is set, but neither key_file nor key_command is")
        if self.min_stores > self.stores:
            raise ValueError(f"min_stores is {self.min_stores}, but stores is only {self.stores}")
        return self

    def options(self) -> Options:
        """The actors' options. Raises `ValueError`."""
        names = {field.name for field in dataclasses.fields(Options)} & set(type(self).model_fields)
        return Options(**{name: getattr(self, name) for name in names})

    @property
    def greatest_file_bytes(self) -> int:
        """The largest file: as allowed, and as one manifest of a chunk's size can list."""
        return min(self.max_file_bytes, (CHUNK_BYTES - 2) // MANIFEST_NAME_BYTES * self.chunk_bytes)

    @property
    def url(self) -> str:
        """The URL of the HTTP API."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._scheme}://{host}:{self.port}"

    @property
    def metrics_url(self) -> str:
        """The URL of the metrics of a node that is no gateway."""
        host = f"[{self.metrics_host}]" if ":" in self.metrics_host else self.metrics_host
        return f"{self._scheme}://{host}:{self.metrics_port}"

    @property
    def _scheme(self) -> str:
        return "https" if self.tls_cert else "http"

    @property
    def broker_tls(self) -> BrokerTls:
        """The files for `amqps://`."""
        return BrokerTls(self.broker_ca, self.broker_cert, self.broker_key)

    @property
    def cookies_need_tls(self) -> bool:
        """Whether all browsers reach the gateway over TLS."""
        return self.tls_cert is not None or self.tls_proxy


SettingSource = Literal["flag", "credentials", "environment", "file", "default"]
"""`credentials` is the file that `broker_credentials` names."""


class Effective(NamedTuple):
    """One effective setting, with secrets masked, and its source."""

    name: str
    value: Any
    source: SettingSource


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def settings_file() -> Path:
    """The settings file: `$SYNOD_CONFIG`, or `synod.toml` in the current folder."""
    return Path(os.environ.get("SYNOD_CONFIG") or DEFAULT_FILE)


def load_settings(**flags: Any) -> Settings:
    """The effective settings; flags that are `None` were not given. Raises `SettingsError`."""
    return _load(Settings, flags)


def load_key_settings(**flags: Any) -> KeySettings:
    """The same, of the keys alone. Raises `SettingsError`."""
    return _load(KeySettings, flags)


def _load(kind: type[_S], flags: dict[str, Any]) -> _S:
    if "SYNOD_CONFIG" in os.environ and not settings_file().is_file():
        raise SettingsError(f"SYNOD_CONFIG names {settings_file()}, which is no file")
    try:
        return kind(**_given(flags))
    except ValidationError as error:
        problems = "; ".join(_readable(detail, flags) for detail in error.errors())
        raise SettingsError(problems) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{settings_file()} can't be read: {error}") from None


def effective(settings: Settings, **flags: Any) -> list[Effective]:
    """Every setting with secrets masked, in the order of their definition."""
    file = settings.broker_credentials
    own = _credentials_in(file) if file else {}
    return [
        Effective(name, shown(name, getattr(settings, name)), _source(name, flags, own))
        for name in Settings.model_fields
    ]


def shown(name: str, value: Any) -> Any:
    """A setting's value with secrets masked."""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, Path):
        return str(value)
    return masked_url(value) if name == "broker" else value


def masked_url(url: str) -> str:
    """The URL, or URLs, without their passwords. The users' names are kept."""

    def mask(found: re.Match[str]) -> str:
        return f"{found['user']}:{MASK}@" if found[2] else f"{found['user']}@"

    return ",".join(_USER_INFO.sub(mask, each) for each in split_urls(url) or (url,))


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _credentials_in(file: Path) -> dict[str, str]:
    # Imported here, because a client's commands need no broker.
    from broker.credentials import BadCredentials, settings_in

    try:
        return settings_in(file)
    except BadCredentials as error:
        raise SettingsError(f"broker_credentials: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"broker_credentials names {file}, which can't be read: {error}"
        ) from None


def _source(name: str, flags: dict[str, Any], own: Collection[str] = ()) -> SettingSource:
    if flags.get(name) is not None:
        return "flag"
    if name in own:
        return "credentials"
    if f"SYNOD_{name}".upper() in {variable.upper() for variable in os.environ}:
        return "environment"
    if settings_file().is_file() and name in tomllib.loads(settings_file().read_text("utf-8")):
        return "file"
    return "default"


def _readable(detail: Any, flags: dict[str, Any]) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    name = str(detail["loc"][0])
    if detail["type"] == "extra_forbidden":
        return f"there is no setting named {name!r} (in {settings_file()})"
    where = {
        "flag": f"--{name.replace('_', '-')}",
        "environment": f"SYNOD_{name.upper()}",
        "file": f"{name} in {settings_file()}",
        "default": name,
    }[_source(name, flags)]
    secret = name == "token"
    value = MASK if secret else shown(name, detail["input"])
    return f"{where} is {value!r}: {message}"
