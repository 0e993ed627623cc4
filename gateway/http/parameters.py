"""Parameters of requests, each declared once: its reader parses it, and `/openapi.json` shows it.

`gateway.http.operations` lists the parameters of each route; its endpoint reads them through these
same objects.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from actors.learner.log_pages import ENTRIES_MAX
from actors.numbers import COUNT_MAX
from gateway.http.headers import choice, number, switch
from synod.headers import KEY_PATTERN

PAGE_MAX = 1000

Place = Literal["query", "header", "path"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter by its name; header fields are named as the documents spell them."""

    name: str
    place: Place
    description: str

    @cached_property
    def key(self) -> str:
        """The name in `header_fields` or `query_fields`."""
        return self.name.lower() if self.place == "header" else self.name

    def schema(self) -> dict[str, Any]:
        """The allowed values, as JSON Schema."""
        return {"type": "string"}


@dataclass(frozen=True, kw_only=True)
class Text(Parameter):
    """Any text; `pattern` describes its rules as far as a pattern can."""

    pattern: str | None = None
    examples: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """See `Parameter`."""
        return super().schema() | ({"pattern": f"^{self.pattern}$"} if self.pattern else {})

    def of(self, fields: dict[str, str]) -> str:
        """The given value, or an empty text."""
        return fields.get(self.key, "")


@dataclass(frozen=True, kw_only=True)
class Number(Parameter):
    """A whole number from `least` to `most`, at most `COUNT_MAX`, the limit of messages."""

    place: Place = "query"
    default: int = 0
    least: int = 0
    most: int

    def __post_init__(self) -> None:
        assert 0 <= self.least <= self.default <= self.most <= COUNT_MAX, self

    def schema(self) -> dict[str, Any]:
        """See `Parameter`."""
        return {
            "type": "integer",
            "minimum": self.least,
            "maximum": self.most,
            "default": self.default,
        }

    def of(self, query: dict[str, str]) -> int:
        """What was given, or the default. Raises `Problem`."""
        return number(query, self.key, default=self.default, least=self.least, most=self.most)


@dataclass(frozen=True, kw_only=True)
class Choice(Parameter):
    """One of `allowed`; the first is the default."""

    place: Place = "query"
    allowed: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        """See `Parameter`."""
        return {"type": "string", "enum": list(self.allowed), "default": self.allowed[0]}

    def of(self, query: dict[str, str]) -> str:
        """What was given, or the default. Raises `Problem`."""
        return choice(query, self.key, self.allowed)


@dataclass(frozen=True, kw_only=True)
class Switch(Parameter):
    """A header that is `1` or `0`."""

    place: Place = "header"
    default: bool

    def schema(self) -> dict[str, Any]:
        """See `Parameter`."""
        return {"type": "string", "enum": ["0", "1"], "default": str(int(self.default))}

    def of(self, fields: dict[str, str]) -> bool:
        """What was given, or the default. Raises `Problem`."""
        return switch(fields, self.key, default=self.default)


# -- queries --------------------------------------------------------------------------------------

CONSISTENCY = Choice(
    name="consistency",
    allowed=("linearizable", "stale"),
    description="`stale`: from any store at once, which may lag behind.",
)
AT_LEAST = Number(
    name="at_least",
    most=COUNT_MAX,
    description="Ask a store that has applied this slot, such as the `Synod-Slot` of a write.",
)
RECURSIVE = Choice(
    name="recursive",
    allowed=("false", "true"),
    description="`true`: all that is below it goes, too.",
)
READY_FOR = Choice(
    name="for",
    allowed=("writes", "reads"),
    description="Whether a write could be done now, or a linearizable read.",
)
LISTING_LIMIT = Number(
    name="limit", default=PAGE_MAX, least=1, most=PAGE_MAX, description="Entries of a page."
)
LISTING_AFTER = Text(
    name="after", place="query", description="Begin after this name: `next` of the page before."
)
TOKENS_LIMIT = Number(name="limit", default=100, least=1, most=1000, description="How many.")
TOKENS_AFTER = Text(
    name="after", place="query", description="Begin after this id: `next` of the page before."
)
NAMES_LIMIT = Number(name="limit", default=100, least=1, most=1000, description="How many.")
NAMES_AFTER = Text(
    name="after", place="query", description="Begin after this name: `next` of the page before."
)
SESSIONS_LIMIT = Number(name="limit", default=100, least=1, most=1000, description="How many.")
SESSIONS_AFTER = Text(
    name="after", place="query", description="Begin after this id: `next` of the page before."
)
REQUESTS_LIMIT = Number(name="limit", default=100, least=1, most=1000, description="How many.")
LOG_BEFORE = Number(
    name="before", most=COUNT_MAX, description="The newest slots below this one; 0: of all."
)
LOG_LIMIT = Number(
    name="limit", default=100, least=1, most=ENTRIES_MAX, description="How many slots."
)
LOG_COMMANDS = Number(
    name="commands", most=COUNT_MAX, description="Only the first commands of each slot; 0: all."
)
AUDIT_AFTER = Number(
    name="after", most=COUNT_MAX, description="Records after this number: `through` of a page."
)
AUDIT_BEFORE = Number(
    name="before", most=COUNT_MAX, description="Records before this number; 0: up to the end."
)
AUDIT_LIMIT = Number(name="limit", default=100, least=1, most=1000, description="How many.")
AUDIT_ORDER = Choice(
    name="order", allowed=("newest", "oldest"), description="Which records come first."
)
AUDIT_PREFIX = Text(
    name="prefix",
    place="query",
    description="Only records about this path, or a path below it.",
    examples=("docs",),
)
AUDIT_PRINCIPAL = Text(
    name="principal",
    place="query",
    description="Only what the token with this id did, or the `administrator`.",
)
AUDIT_OPERATION = Text(
    name="operation",
    place="query",
    description="Only operations of this kind.",
    examples=("put_file", "create_token"),
)
AUDIT_RESULT = Text(
    name="result",
    place="query",
    description="Only commands with this result.",
    examples=("done", "denied"),
)
AUDIT_SINCE = Number(
    name="since_ms", most=COUNT_MAX, description="Only from this log time on, in milliseconds."
)
AUDIT_UNTIL = Number(
    name="until_ms", most=COUNT_MAX, description="Only up to this log time, in milliseconds."
)
AUDIT_WAIT = Number(
    name="wait_s",
    most=20,
    description="With `order=oldest`, wait so many seconds for a record if there is none.",
)
AUDIT_LEARNER = Text(
    name="learner",
    place="query",
    description="Which learner to ask; all have the same records, as far back as each keeps them.",
    examples=("learner-2",),
)
REFUSALS_LIMIT = Number(name="limit", default=100, least=1, most=2000, description="How many.")
TOPICS = Text(
    name="topics",
    place="query",
    description="Any of `cluster`, `requests`, `log`, separated by commas.",
    examples=("cluster,log",),
)
EVENTS_AFTER = Text(
    name="after",
    place="query",
    description="Changes after this id; `Last-Event-ID` comes first.",
)
FIGURES_AFTER = Number(
    name="figures_after",
    most=COUNT_MAX,
    description="First the figures of the seconds after this time, in microseconds since 1970.",
)
WATCH_PREFIX = Text(
    name="prefix",
    place="query",
    description="Only changes of paths that begin so; may end with a slash.",
    examples=("docs/",),
)
WATCH_AFTER = Text(
    name="after", place="query", description="Go on after this id; `Last-Event-ID` comes first."
)
ROWS_AT_LEAST = Number(
    name="at_least",
    most=COUNT_MAX,
    description="The state must hold this slot: `at_least` of the begin.",
)
ROWS_SOURCE = Text(
    name="source", place="query", description="Whose state: `source` of the page before."
)
ROWS_SLOT = Number(
    name="slot", most=COUNT_MAX, description="Which state: `slot` of the page before; 0 at first."
)
ROWS_PAGE = Number(name="page", most=COUNT_MAX, description="Which page, from 0.")

# -- headers --------------------------------------------------------------------------------------

IF_MATCH = Text(
    name="If-Match",
    place="header",
    description="Only if the file's ETag is one of these; `*`: only if it exists.",
    examples=("*", '"12-0"'),
)
IF_NONE_MATCH = Text(
    name="If-None-Match",
    place="header",
    description="Only if the file's ETag is none of these; `*`: only if it does not exist.",
    examples=("*", '"12-0"'),
)
IF_RANGE = Text(
    name="If-Range",
    place="header",
    description="`Range` counts only if this is the file's ETag; else the whole file is sent.",
    examples=('"12-0"',),
)
RANGE = Text(
    name="Range",
    place="header",
    description="One range of bytes; anything else is ignored, as RFC 9110 wants it.",
    examples=("bytes=0-99", "bytes=-100"),
)
IDEMPOTENCY_KEY = Text(
    name="Idempotency-Key",
    place="header",
    pattern=KEY_PATTERN,
    description="The same key with the same request is applied once; kept for a day of log time.",
    examples=("3f0c0b9e-1",),
)
RETRY = Switch(
    name="Synod-Retry",
    default=True,
    description="`0`: the gateway does not try once more by itself after an abort.",
)
EXECUTABLE = Switch(name="Synod-Executable", default=False, description="Kept with the file.")
MODIFIED = Text(
    name="Synod-Modified",
    place="header",
    description="Modification time in milliseconds since 1970; without it, `Last-Modified` or now.",
    examples=("1795460525626",),
)
LAST_MODIFIED = Text(
    name="Last-Modified",
    place="header",
    description="Modification time as an HTTP date, if there is no `Synod-Modified`.",
    examples=("Thu, 26 Nov 2026 11:42:05 GMT",),
)
META = Text(
    name="Synod-Meta-NAME",
    place="header",
    description="Metadata stored with the file: any number of such headers, of 2 KiB together.",
    examples=("mine",),
)
REPR_DIGEST = Text(
    name="Repr-Digest",
    place="header",
    description="`sha-256=:BASE64:` (RFC 9530). A body with another digest is refused.",
    examples=("sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:",),
)
CONTENT_DIGEST = Text(
    name="Content-Digest",
    place="header",
    description="As `Repr-Digest`; content codings are not kept, so they are the same.",
    examples=("sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:",),
)
LAST_EVENT_ID = Text(
    name="Last-Event-ID",
    place="header",
    description="The id of the last event that was heard; browsers send it by themselves.",
)

# -- paths ----------------------------------------------------------------------------------------

FILE_PATH = Text(
    name="path",
    place="path",
    description="Names joined by slashes, each percent-encoded: `a/b.txt`. The slashes are not "
    "encoded; `%2F`, `.`, `..`, empty names, control characters and what is not UTF-8 in Unicode's "
    "normal form C are refused.",
    examples=("greetings/hello.txt",),
)
DIRECTORY_PATH = Text(
    name="path",
    place="path",
    description=f"{FILE_PATH.description} Empty: the root.",
    examples=("greetings",),
)
REQUEST = Text(
    name="request",
    place="path",
    description="`Synod-Request-Id` of a write.",
    examples=("gateway-1.fd420290d28ca9f9-2",),
)
CHUNK = Text(
    name="sha256",
    place="path",
    pattern="[0-9a-f]{64}",
    description="The chunk's SHA-256 in hexadecimal.",
)
MEMBER = Text(
    name="name",
    place="path",
    pattern="(proposer|acceptor|learner|store)-[1-9][0-9]{0,2}",
    description="The member's name.",
    examples=("acceptor-3", "store-4"),
)
STATIC_NAME = Text(
    name="name", place="path", description="A file of the web UI.", examples=("app.css",)
)
TOKEN = Text(
    name="token",
    place="path",
    description="The id of a token.",
    examples=("abcdefghijklmnop",),
)

USER = Text(name="user", place="path", description="The name of a user.", examples=("alice",))
GROUP = Text(name="group", place="path", description="The name of a group.", examples=("devs",))
SESSION = Text(
    name="session",
    place="path",
    description="The id of a session.",
    examples=("abcdefghijklmnop",),
)
