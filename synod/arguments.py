"""Checks a request's arguments by the gateway's own rules before the client sends anything."""

from collections.abc import Iterable, Mapping
from typing import Any

from synod.errors import InvalidRequest
from synod.metadata import META_PREFIX, InvalidMetadata, checked
from synod.paths import InvalidPath, checked_path
from synod.tags import InvalidTags, Tags, conditions_header, tags_of

_PATHS = ("path", "source", "target")
_CONDITIONS = ("if_match", "if_none_match", "target_if_match", "target_if_none_match")


def condition_headers(if_match: Tags, if_none_match: Tags = None) -> dict[str, str]:
    """The If-Match and If-None-Match headers of a write. Raises `InvalidRequest`."""
    given = (("if-match", if_match), ("if-none-match", if_none_match))
    try:
        return {name: conditions_header(tags, name) for name, tags in given if tags is not None}
    except InvalidTags as error:
        raise InvalidRequest(f"{error}") from None


def metadata_headers(
    content_type: str | None,
    modified_ms: int | None,
    executable: bool,
    meta: Mapping[str, str] | None,
) -> dict[str, str]:
    """The headers of a PUT that carry the file's metadata. Raises `InvalidRequest`."""
    try:
        metadata = checked(content_type or "", modified_ms, executable, (meta or {}).items())
    except (InvalidMetadata, TypeError, AttributeError) as error:
        raise InvalidRequest(f"{error}") from None
    headers = {META_PREFIX + name: value for name, value in metadata.meta}
    if content_type is not None:
        headers["content-type"] = metadata.content_type
    if modified_ms is not None:
        headers["synod-modified"] = str(modified_ms)
    if executable:
        headers["synod-executable"] = "1"
    return headers


def check_steps(steps: Iterable[Mapping[str, Any]]) -> None:
    """Raises `InvalidRequest` or `InvalidPath`, naming the step, if no gateway would accept it."""
    for number, step in enumerate(steps):
        try:
            check_members(step)
        except InvalidPath as error:
            raise InvalidPath(f"step {number}: {error}") from None
        except InvalidRequest as error:
            raise InvalidRequest(f"step {number}: {error}") from None


def check_members(members: Mapping[str, Any]) -> None:
    """The same for a move, a copy or one step. Values of a wrong type are left to the gateway."""
    for name in _PATHS:
        if isinstance(path := members.get(name), str):
            checked_path(path)
    try:
        for name in _CONDITIONS:
            if isinstance(tags := members.get(name), str | list | tuple):
                tags_of(tags, name)
        content_type, modified_ms = members.get("content_type"), members.get("modified_ms")
        meta = members.get("meta")
        checked(
            content_type if isinstance(content_type, str) else "",
            modified_ms if isinstance(modified_ms, int) else None,
            meta=meta.items() if isinstance(meta, Mapping) else (),
        )
        if isinstance(text := members.get("text"), str):
            text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("text is not Unicode; send bytes as base64") from None
    except (InvalidTags, InvalidMetadata, TypeError, AttributeError) as error:
        raise InvalidRequest(f"{error}") from None
