"""`make sbom` lists each package that is installed, and each vendored file."""

import json
import re

import pytest

from tests.house.sbom import LOCK, VENDOR, make
from tests.long import LONG

_ENTRY = re.compile(r"^(?P<name>[\w.\-]+)==(?P<version>\S+).*?\n(?P<hashes>(?:    .*\n?)+)", re.M)


@pytest.mark.slow
def test_each_locked_package_and_vendored_file_is_listed_with_its_hashes() -> None:
    """Given the lock, then each entry has its component with the same version and hashes; nothing
    in it depends on when it was made.
    """
    text = make()
    listed = {
        one["name"]: (
            one["version"],
            {part["content"] for where in one["externalReferences"] for part in where["hashes"]},
        )
        for one in json.loads(text)["components"]
        if one["purl"].startswith("pkg:pypi/")
    }
    locked = {
        entry["name"]: (
            entry["version"],
            set(re.findall(r"sha256:([0-9a-f]{64})", entry["hashes"])),
        )
        for entry in _ENTRY.finditer(LOCK.read_text())
    }
    assert len(locked) > 30
    assert listed == locked

    files = {
        file["name"].rpartition("/")[2]: file["hashes"][0]["content"]
        for one in json.loads(text)["components"]
        for file in one.get("components", ())
    }
    present = {path.name for path in VENDOR.iterdir()}
    assert set(files) == {
        name for name in present if name != "README.md" and not name.endswith(".LICENSE")
    }
    licences = {
        one["name"]: one["licenses"][0]["license"]["id"]
        for one in json.loads(text)["components"]
        if "components" in one
    }
    assert licences == {"uPlot": "MIT", "swagger-ui-dist": "Apache-2.0"}
    assert not {"timestamp", "serialNumber"} & {*json.loads(text)["metadata"], *json.loads(text)}
    if LONG:
        assert make() == text
