from __future__ import annotations

import pytest

from tests.sandbox.airtable.caller import Caller


@pytest.fixture
def api() -> Caller:
    return Caller()
