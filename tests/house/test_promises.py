"""What the documents and the settings promise is there."""

import re
from pathlib import Path

from gateway.settings import Settings
from tests.house.test_tidy import python_files

ROOT = Path(__file__).parents[2]


def test_every_setting_changes_something() -> None:
    # A setting that nothing reads promises what does not happen.
    code = "\n".join(python_files().values())
    unread = [name for name in Settings.model_fields if not re.search(rf"\.{name}\b", code)]
    assert unread == []
