"""``doctor`` on accounts that do not offer all that the APIs may: their plan, or their token."""

from __future__ import annotations

from pathlib import Path

import pytest

from kommo_airtable_sync.cli.doctor import examine
from tests.engine.conftest import new_world, world
from tests.kommo.loopback import Loopback, Reply, refused_url
from tests.simulated import World

__all__ = ["new_world", "world"]
EXAMPLE = Path(__file__).parents[2] / "sync.example.yaml"
TABLE = {
    "id": "tblBBBBBBBBBBBBBB",
    "name": "Deals",
    "primaryFieldId": "fldCCCCCCCCCCCCCC",
    "fields": [{"id": "fldCCCCCCCCCCCCCC", "name": "Name", "type": "singleLineText"}],
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that name accounts at which nobody answers."""
    for name, value in {
        "KOMMO_BASE_URL": refused_url(),
        "KOMMO_TOKEN": "a-token",
        "KOMMO_WEBHOOK_SECRET": "kommo-secret-0123456789",
        "AIRTABLE_ENDPOINT_URL": refused_url(),
        "AIRTABLE_TOKEN": "pat.x",
        "AIRTABLE_BASE_ID": "appAAAAAAAAAAAAAA",
        "DAGSTER_HOME": str(tmp_path),
        "SYNC_CONFIG": str(EXAMPLE),
    }.items():
        monkeypatch.setenv(name, value)


def found(check: str) -> list[tuple[str, str]]:
    return [(each.level, each.message) for each in examine() if each.check == check]


def test_a_base_that_opens_is_well_though_bases_are_not_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airtable = Loopback()
    airtable.script += [
        Reply(200, {"id": "usrAAAAAAAAAAAAAA"}),
        Reply(404, {"error": "NOT_FOUND"}),
        Reply(200, {"tables": [TABLE]}),
        Reply(200, {"records": []}),
        Reply(422, {"error": {"type": "INVALID_RECORDS", "message": "none"}}),
        *[Reply(503)] * 9,
    ]
    monkeypatch.setenv("AIRTABLE_ENDPOINT_URL", airtable.url)
    try:
        assert found("airtable") == [("ok", "The token reads and writes records.")]
    finally:
        airtable.close()


@pytest.mark.parametrize("sql_engine", ["sqlite"])
@pytest.mark.parametrize("side", ["kommo", "airtable"])
def test_a_side_that_hides_its_webhooks_is_a_warning_and_the_other_is_looked_at(
    world: World, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kommo_airtable_sync.assembly.build_engine", lambda *_: world.engine)
    variant = "json" if side == "kommo" else ""
    world.fail(side, "status", status=403, variant=variant, route="*/webhooks")
    shown = found("webhooks")
    assert [level for level, _ in shown] == ["warning", "warning"]
    denied, missing = shown if side == "kommo" else shown[::-1]
    assert "denies this" in denied[1]
    assert "No webhook is registered at" in missing[1]
