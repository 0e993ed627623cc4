"""The rules for names, as a URL spells them."""

import unicodedata
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import values
from synod import paths
from synod.paths import InvalidPath, checked_path, path_from_url, path_to_url

_NAME_CHARACTERS = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/")
_NAMES = (
    st.text(_NAME_CHARACTERS, min_size=1, max_size=60)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda text: text not in (".", "..") and len(text.encode()) <= 255)
)
_PATHS = st.lists(_NAMES, min_size=0, max_size=10).map("/".join)


@given(_PATHS)
def test_a_good_path_survives_the_way_through_a_url(path: str) -> None:
    assert path_from_url(path_to_url(path).encode()) == path


@given(_PATHS)
def test_how_much_of_a_path_is_escaped_does_not_matter(path: str) -> None:
    everything = "/".join(
        "".join(f"%{byte:02x}" for byte in name.encode()) for name in path.split("/")
    )

    assert path_from_url(everything.encode()) == path
    assert path_from_url(path.replace("%", "%25").encode()) == path


@given(st.binary(max_size=300))
def test_whatever_comes_is_refused_or_follows_the_rules(raw: bytes) -> None:
    try:
        path = path_from_url(raw)
    except InvalidPath:
        return

    assert unicodedata.is_normalized("NFC", path)
    assert len(path.encode()) <= 4096
    for name in path.split("/") if path else ():
        assert name not in ("", ".", "..")
        assert len(name.encode()) <= 255
        assert not any(unicodedata.category(character) == "Cc" for character in name)


def test_a_path_is_decoded_once() -> None:
    assert path_from_url(b"a%252Fb") == "a%2Fb"
    assert path_from_url(b"%25") == "%"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"a%2Fb", "slash"),
        (b"a%2fb", "slash"),
        (b"%2F", "slash"),
        (b"..", "'..'"),
        (b"a/../b", "'..'"),
        (b"a/%2e%2E/b", "'..'"),
        (b"a/./b", "'.'"),
        (b"%2e", "'.'"),
        (b"a//b", "empty"),
        (b"/a", "empty"),
        (b"a/", "empty"),
        (b"a%00b", "control"),
        (b"a%0Ab", "control"),
        (b"a%0A", "control"),
        (b"a%7F", "control"),
        (b"a%C2%85", "control"),
        (b"%FF", "UTF-8"),
        (b"\xff", "UTF-8"),
        (b"%C0%AF", "UTF-8"),
        (b"%ED%A0%80", "UTF-8"),
        (b"a%", "hexadecimal"),
        (b"a%4", "hexadecimal"),
        (b"a%zz", "hexadecimal"),
        (quote(unicodedata.normalize("NFD", "é")).encode(), "normal form C"),
        (b"a" * 256, "255"),
        (quote("é" * 128).encode(), "255"),
        (b"/".join([b"a" * 255] * 17), "4096"),
    ],
)
def test_what_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(InvalidPath, match=reason):
        path_from_url(raw)


def test_the_longest_names_and_paths_are_good() -> None:
    assert path_from_url(b"a" * 255) == "a" * 255
    assert path_from_url(quote("é" * 127).encode()) == "é" * 127
    longest = "/".join(["a" * 255] * 16)
    assert len(longest) == 4095
    assert checked_path(longest) == longest


def test_a_local_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidPath, match="UTF-8"):
        checked_path("a\udcff")


def test_clients_and_replicas_bound_a_path_by_the_same_number() -> None:
    """The client library imports nothing of the actors, and they nothing of it."""
    assert values.PATH_BYTES_MAX == paths.PATH_BYTES_MAX
