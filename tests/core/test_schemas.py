from __future__ import annotations

import json

import pytest

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.schemas import AirtableSchema, KommoSchema
from tests.core import accounts

NEWER = {"contact_fields", "company_fields"}


def test_a_kommo_schema_survives_the_cache():
    schema = accounts.kommo_schema()
    assert KommoSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_an_airtable_schema_survives_the_cache():
    schema = accounts.airtable_schema()
    assert AirtableSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    assert schema.tables[0].fields[2].choices == ("New", "Won")
    assert schema.tables[0].find_field("Stars").max == 5


def test_won_is_a_stage_of_each_pipeline():
    names = accounts.kommo_schema().status_names
    assert names[accounts.SALES, 142] == names[accounts.ENTERPRISE, 142] == "Won"
    assert names[accounts.ENTERPRISE, 602] == "In Progress"


def test_custom_fields_are_found_by_id_code_and_name():
    schema = accounts.kommo_schema()
    assert [f.id for f in schema.find_fields(22)] == [22]
    assert [f.id for f in schema.find_fields("UTM_SOURCE")] == [22]
    assert [f.id for f in schema.find_fields("Region")] == [12]
    assert [f.id for f in schema.find_fields("Twin")] == [24, 25]
    assert schema.find_fields("nothing") == ()
    assert [f.id for f in schema.find_fields("PHONE", "contacts")] == [41]
    assert [f.id for f in schema.find_fields("Phone", "companies")] == [51]
    assert schema.find_fields("Region", "contacts") == schema.find_fields(41, "companies") == ()


def test_a_schema_kept_by_an_earlier_release_knows_no_contacts_fields():
    stored = accounts.kommo_schema().to_json()
    kept = {key: value for key, value in stored.items() if key not in NEWER}
    assert KommoSchema.from_json(kept).contact_fields == ()


def test_tables_and_fields_are_found_by_name_and_id():
    schema = accounts.airtable_schema()
    assert schema.find_table("Deals") == schema.find_table("tblDeals000000000") is not None
    table = schema.tables[0]
    assert table.find_field("Deal Name") == table.find_field("fld01") is not None
    assert schema.find_table("deals") is None
    assert table.find_field("deal name") is None


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "Europe", "../etc/passwd"])
def test_an_account_without_a_known_zone_is_refused(zone):
    with pytest.raises(ConfigurationError, match="time zone"):
        accounts.kommo_schema(zone)


def test_an_account_may_keep_its_zone_to_itself():
    schema = KommoSchema.from_api(
        pipelines=[], users=[], custom_fields=[], loss_reasons=[], account={"id": 1}
    )
    assert (schema.time_zone, schema.zone.key) == ("", "UTC")
