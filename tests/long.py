"""The long form of the tests, which `SYNOD_LONG=1` selects: CI has half an hour for all others."""

import os

import pytest

LONG = os.environ.get("SYNOD_LONG", "") == "1"

only_long = pytest.mark.skipif(not LONG, reason="a long test: set SYNOD_LONG=1")
