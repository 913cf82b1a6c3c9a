"""From when on changes count."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest

from kommo_airtable_sync.core.config import Reconcile
from kommo_airtable_sync.defs.reconciliation import since_of

BERLIN = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("asked", "setting", "expected"),
    [
        (None, None, None),
        ("2026-03-02T09:00", None, datetime(2026, 3, 2, 9, tzinfo=timezone.utc)),
        ("2026-03-02T09:00Z", None, datetime(2026, 3, 2, 9, tzinfo=timezone.utc)),
        ("2026-03-02T09:00+01:00", None, datetime(2026, 3, 2, 9, tzinfo=BERLIN)),
        (None, date(2026, 3, 2), datetime(2026, 3, 2, tzinfo=BERLIN)),
        (
            None,
            datetime(2026, 3, 2, tzinfo=timezone.utc),
            datetime(2026, 3, 2, tzinfo=timezone.utc),
        ),
        ("2026-03-02", date(2020, 1, 1), datetime(2026, 3, 2, tzinfo=timezone.utc)),
    ],
)
def test_what_is_asked_for_goes_before_sync_yaml(
    asked: str | None, setting: datetime | date | None, expected: datetime | None
) -> None:
    settings = Reconcile(since=setting, timezone="Europe/Berlin")
    assert since_of(asked, settings) == expected
