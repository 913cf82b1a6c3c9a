from __future__ import annotations

from pathlib import Path

from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.filters import qualifies
from kommo_airtable_sync.core.mapping import resolve
from tests.core.accounts import BASE_URL, airtable_schema, kommo_schema, lead

EXAMPLE = Path(__file__).parents[2] / "sync.example.yaml"


def test_the_example_fits_the_accounts_it_was_written_for():
    config = parse_config(EXAMPLE.read_text(encoding="utf-8"), EXAMPLE.name)
    mapping = resolve(config, kommo_schema(), airtable_schema(), base_url=BASE_URL)
    assert len(mapping.fields) == 22
    assert {f.name: f.owner for f in mapping.fields if f.owner != "kommo"} == {
        "Amount": "both",
        "Tags": "both",
        "Onboarding Status": "airtable",
    }
    assert [(link.kind, link.target.name) for link in mapping.links] == [("contact", "Client")]
    assert mapping.status is not None
    values = {f.name: f.to_cell(f.from_kommo(lead())) for f in mapping.fields}
    assert values["Deal Name"] == "Lead 1"
    assert values["Amount"] == 1500
    assert values["Created"] == "2025-10-20T16:01:12.000Z"
    assert qualifies(lead(), mapping.filters, already_synced=False).ok
    assert not qualifies(lead(tags=["test"]), mapping.filters, already_synced=False).ok
