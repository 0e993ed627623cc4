"""Vendored files are as released: their SHA-256 is in the README beside them."""

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT / "gateway/ui/vendor", ROOT / "tests/browser/vendor")
_ROW = re.compile(r"^\| `(?P<name>[\w.\-]+)` \|.*`(?P<sha256>[0-9a-f]{64})` \|$", re.MULTILINE)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_vendored_files_are_as_released(folder: Path) -> None:
    listed = dict(_ROW.findall((folder / "README.md").read_text()))
    present = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "README.md" and not file.name.endswith(".LICENSE")
    }
    assert present
    assert present == listed
