from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.errors import ConfigurationError, LeadFailed
from kommo_airtable_sync.core.field_mapping import KeyField, OptionMissing
from kommo_airtable_sync.core.mapping import resolve
from kommo_airtable_sync.core.schemas import UnknownReference
from tests.core.accounts import (
    BASE_URL,
    ENTERPRISE,
    FIELD_IDS,
    LOST,
    WON,
    airtable_schema,
    config_text,
    custom,
    enum_id,
    kommo_schema,
    lead,
    mapping_of,
)


def one(*fields: str, zone: str = "Europe/Moscow"):
    return mapping_of(*fields, zone=zone).fields[0]


def refused(*fields: str, kommo: str = "{}", airtable: str = "") -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve(
            parse_config(config_text(*fields, kommo=kommo, airtable=airtable)),
            kommo_schema(),
            airtable_schema(),
            base_url=BASE_URL,
        )
    return caught.value.message


def test_names_become_ids():
    mapping = mapping_of("airtable: Deal Name, kommo: name", "airtable: fld04, kommo: price")
    assert (mapping.table_id, mapping.table_name) == ("tblDeals000000000", "Deals")
    assert (mapping.key.id, mapping.key.type) == (FIELD_IDS["Kommo Deal ID"], "number")
    assert [(f.id, f.name, f.type) for f in mapping.fields] == [
        ("fld01", "Deal Name", "singleLineText"),
        ("fld04", "Amount", "currency"),
    ]


# --- reading a lead ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "changes", "value"),
    [
        ("name", "Deal Name", {"name": "Big deal"}, "Big deal"),
        ("name", "Deal Name", {"name": ""}, None),
        ("responsible_user", "Owner", {}, "ana@acme.example"),
        ("responsible_user", "Owner", {"responsible_user_id": 92}, None),
        ("responsible_user_email", "Owner", {}, "ana@acme.example"),
        ("price", "Amount", {"price": 0}, Decimal(0)),
        ("price", "Amount", {"price": None}, None),
        ("price", "Amount", {"price": 10, "price_with_minor_units": 10.45}, Decimal("10.45")),
        ("stage", "Stage", {}, "New"),
        ("stage", "Stage", {"status_id": None, "pipeline_id": None}, None),
        ("pipeline", "Pipeline", {"pipeline_id": ENTERPRISE}, "Enterprise"),
        ("responsible_user", "Manager", {}, "Ana Lima"),
        ("responsible_user", "Manager", {"responsible_user_id": 0}, None),
        ("responsible_user_email", "Manager Email", {}, "ana@acme.example"),
        ("responsible_user_email", "Manager Email", {"responsible_user_id": 92}, None),
        ("tags", "Tags", {"tags": ["hot", " new ", "hot"]}, frozenset({"hot", "new"})),
        ("tags", "Tags", {"_embedded": {}}, None),
        ("created_at", "Created", {"created_at": 1734012000},
         datetime(2024, 12, 12, 14, tzinfo=timezone.utc)),
        ("closed_at", "Closed", {}, None),
        ("created_at", "Contract Date", {"created_at": 1729717200}, date(2024, 10, 24)),
        ("loss_reason", "Region Code", {"loss_reason_id": 31}, "Too dear"),
        ("loss_reason", "Region Code", {}, None),
        ("source", "Seats", {"source_id": 77}, Decimal(77)),
        ("score", "Seats", {"score": None}, None),
        ("main_contact", "Manager", {"_names": {"main_contact": "Ana Maria"}}, "Ana Maria"),
        ("main_contact", "Manager", {"_names": {"company": "Acme"}}, None),
        ("company", "Region", {"_names": {"company": " Acme "}}, "Acme"),
        ("company", "Manager", {}, None),
        ("id", "Seats", {}, Decimal(20024930)),
        ("url", "Website", {}, "https://acme.kommo.com/leads/detail/20024930"),
    ],
)  # fmt: skip
def test_an_attribute_is_read(source, target, changes, value):
    found = one(f"airtable: {target}, kommo: {source}").from_kommo(lead(**changes))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "target", "values", "value"),
    [
        ("Region code", "Region Code", [{"value": "EU-1"}], "EU-1"),
        ("Region code", "Region Code", [], None),
        ("Street", "Notes", [{"value": "1 Way\nTown"}], "1 Way\nTown"),
        ("Notes", "Rich", [{"value": "*bold*\n"}], "*bold*"),
        ("UTM_SOURCE", "Region Code", [{"value": "ads"}], "ads"),
        ("Region", "Region", [{"value": "old name", "enum_id": enum_id(12, "UK")}], "UK"),
        ("Source type", "Source Type", [{"value": "Inbound", "enum_id": 2100}], "Inbound"),
        ("Products", "Products",
         [{"value": "Core", "enum_id": 1700}, {"value": "Training", "enum_id": 1702}],
         frozenset({"Core", "Training"})),
        ("Seats", "Seats", [{"value": "1.50"}], Decimal("1.5")),
        ("Seats", "Seats", [{"value": 12}], Decimal(12)),
        ("Seats", "Share", [{"value": "12.5"}], Decimal("12.5")),
        ("Seats", "Length", [{"value": "90"}], Decimal(90)),
        ("Budget", "Budget", [{"value": "0.1"}], Decimal("0.1")),
        ("VIP", "VIP", [{"value": True}], True),
        ("VIP", "VIP", [{"value": "0"}], False),
        ("VIP", "VIP", [], False),
        ("Website", "Website", [{"value": "https://x.example"}], "https://x.example"),
        # 2024-10-23T21:00Z is midnight of the 24th in the account's zone (reference 4.2).
        ("Contract date", "Contract Date", [{"value": 1729717200}], date(2024, 10, 24)),
        ("Contract date", "Kickoff", [{"value": 1729717200}],
         datetime(2024, 10, 23, 21, tzinfo=timezone.utc)),
        ("Born", "Contract Date", [{"value": -1000000800}], date(1938, 4, 25)),
        ("Kickoff", "Kickoff", [{"value": 1734012000}],
         datetime(2024, 12, 12, 14, tzinfo=timezone.utc)),
        ("Kickoff", "Kickoff", [{"value": None}], None),
        ("Papers", "Notes", [{"value": {"file_uuid": "u", "file_name": "offer.pdf"}}], "offer.pdf"),
        ("Firm", "Notes", [{"value": {"name": "Acme", "entity_type": 2, "vat_id": "DE1"}}],
         "Acme, DE1"),
        ("Office", "Notes", [{"value": "1 High St", "enum_id": 1}, {"value": "Leeds", "enum_id": 3}],
         "1 High St, Leeds"),
        ("Office", "Notes", [], None),
        ("Region code", "Amount", [{"value": "$1,500.00"}], Decimal(1500)),
    ],
)  # fmt: skip
def test_a_custom_field_is_read(name, target, values, value):
    field = one(f"airtable: {target}, kommo: {{custom_field: {name}}}")
    found = field.from_kommo(lead(custom(name, *values)))
    assert found == value
    assert type(found) is type(value)


def test_days_follow_the_accounts_zone():
    entry = "airtable: Contract Date, kommo: {custom_field: Contract date}"
    a_lead = lead(custom("Contract date", {"value": 1729717200}))
    assert one(entry, zone="America/Sao_Paulo").from_kommo(a_lead) == date(2024, 10, 23)
    assert one(entry, zone="Europe/Moscow").from_kommo(a_lead) == date(2024, 10, 24)


def test_stages_may_be_renamed_for_all_pipelines_or_one():
    names = f'{{142: Gained, "{ENTERPRISE}/142": Landed}}'
    stage = one(f"airtable: Stage, kommo: stage, names: {names}")
    assert stage.from_kommo(lead(status_id=WON)) == "Gained"
    assert stage.from_kommo(lead(status_id=WON, pipeline_id=ENTERPRISE)) == "Landed"
    assert stage.from_kommo(lead(status_id=LOST)) == "Lost"


@pytest.mark.parametrize(
    ("source", "target", "changes", "what", "ref"),
    [
        ("stage", "Stage", {"status_id": 9}, "status", "7001/9"),
        ("pipeline", "Pipeline", {"pipeline_id": 9}, "pipeline", 9),
        ("responsible_user", "Manager", {"responsible_user_id": 9}, "user", 9),
        ("responsible_user_email", "Manager Email", {"responsible_user_id": 9}, "user", 9),
        ("loss_reason", "Manager", {"loss_reason_id": 9}, "loss reason", 9),
    ],
)
def test_what_the_schema_does_not_know_asks_for_a_newer_one(source, target, changes, what, ref):
    with pytest.raises(UnknownReference) as caught:
        one(f"airtable: {target}, kommo: {source}").from_kommo(lead(**changes))
    assert (caught.value.what, caught.value.id) == (what, ref)


@pytest.mark.parametrize("name", ["Region", "Products"])
def test_an_unknown_choice_asks_for_a_newer_schema_then_keeps_the_leads_own_text(name):
    field = one(f"airtable: {name}, kommo: {{custom_field: {name}}}")
    a_lead = lead(custom(name, {"value": "Mars", "enum_id": 9}))
    with pytest.raises(UnknownReference, match="enum 9"):
        field.from_kommo(a_lead)
    assert field.from_kommo(a_lead, final=True) in ("Mars", frozenset({"Mars"}))


def test_a_user_who_is_gone_is_shown_by_id():
    manager = one("airtable: Manager, kommo: responsible_user")
    assert manager.from_kommo(lead(responsible_user_id=123), final=True) == "User 123"
    email = one("airtable: Manager Email, kommo: responsible_user_email")
    assert email.from_kommo(lead(responsible_user_id=123), final=True) is None


def test_a_loss_reason_that_is_gone_keeps_the_name_in_the_lead():
    field = one("airtable: Manager, kommo: loss_reason")
    reason = {"tags": [], "loss_reason": [{"id": 9, "name": "Old reason"}]}
    assert field.from_kommo(lead(loss_reason_id=9, _embedded=reason)) == "Old reason"


def test_a_stage_that_is_not_in_kommo_fails_the_lead():
    with pytest.raises(LeadFailed, match="Stage: status 7001/9 is not in Kommo"):
        one("airtable: Stage, kommo: stage").from_kommo(lead(status_id=9), final=True)


@pytest.mark.parametrize(
    ("name", "target", "raw", "said"),
    [
        ("Seats", "Seats", "many", "Seats: 'many' is not a number"),
        ("Seats", "Seats", "1e9999999", "is not a number"),
        ("Seats", "Seats", "NaN", "is not a number"),
        ("Seats", "Seats", True, "is not a number"),
        ("Seats", "Seats", "12345678901234567890", "map it to a text field"),
        ("Seats", "Stars", "6", "whole rating from 1 to 5"),
        ("VIP", "VIP", "perhaps", "VIP: 'perhaps' is not a checkbox value"),
        ("Kickoff", "Kickoff", "1.5", "is not a time in unix seconds"),
        ("Kickoff", "Kickoff", 10**15, "is not a time in unix seconds"),
    ],
)
def test_a_value_that_does_not_fit_fails_its_lead_with_field_and_value(name, target, raw, said):
    field = one(f"airtable: {target}, kommo: {{custom_field: {name}}}")
    with pytest.raises(LeadFailed) as caught:
        field.from_kommo(lead(custom(name, {"value": raw})))
    assert said in caught.value.reason
    assert caught.value.permanent


@given(st.integers(-(10**8), 10**8), st.integers(0, 6))
def test_money_keeps_every_cent(units, places):
    text = f"{units}.{'7' * places}" if places else str(units)
    field = one("airtable: Budget, kommo: {custom_field: Budget}")
    value = field.from_kommo(lead(custom("Budget", {"value": text})))
    assert value == Decimal(text)
    assert field.from_cell(field.to_cell(value)) == value


# --- options -------------------------------------------------------------------------------------


def test_a_missing_option_fails_with_the_remedy():
    with pytest.raises(OptionMissing) as caught:
        one("airtable: Stage, kommo: stage").to_cell("Lost")
    assert caught.value.reason == (
        "Stage: 'Lost' is not an option of Airtable field Stage (options: New, Won); "
        "add it or set create_options: true"
    )


def test_a_missing_option_is_made_where_that_is_allowed():
    mapping = mapping_of(
        "airtable: Stage, kommo: stage, create_options: true",
        "airtable: Tags, kommo: tags, create_options: true",
        "airtable: Region, kommo: {custom_field: Region}",
    )
    stage, tags, region = mapping.fields
    assert stage.to_cell("Lost") == "Lost"
    assert tags.to_cell(frozenset({"hot", "new"})) == ["hot", "new"]
    assert mapping.needs_typecast({stage.id: "Lost"})
    assert mapping.needs_typecast({stage.id: "New", tags.id: frozenset({"hot", "new"})})
    assert not mapping.needs_typecast({stage.id: "New", tags.id: frozenset({"hot"})})
    assert not mapping.needs_typecast({stage.id: None, region.id: "Mars"})
    assert region.to_cell("EU") == "EU "


def test_clearing_a_select_needs_no_option():
    assert one("airtable: Stage, kommo: stage").to_cell(None) is None


def test_a_cell_of_another_type_fails_the_lead():
    with pytest.raises(LeadFailed, match="Amount: 'x' is not a value of an Airtable currency"):
        one("airtable: Amount, kommo: price").from_cell("x")


# --- key field -----------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["number", "singleLineText", "multilineText"])
@given(st.integers(1, 2**53))
def test_the_key_cell_gives_the_lead_id_back(type_, lead_id):
    key = KeyField("fldK", "Key", type_)
    assert key.lead_id_of(key.cell(lead_id)) == lead_id


def test_the_key_has_the_type_of_its_field():
    assert KeyField("fldK", "Key", "number").cell(5) == 5
    assert KeyField("fldK", "Key", "singleLineText").cell(5) == "5"


@pytest.mark.parametrize("cell", [None, "", "abc", "1.5", 1.5, -3, 0, "-3", True, "²", [1]])
def test_a_cell_that_holds_no_id_is_no_key(cell):
    assert KeyField("fldK", "Key", "number").lead_id_of(cell) is None


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "path", "said"),
    [
        ("airtable: Deal Nam, kommo: name", "fields[0].airtable", "did you mean 'Deal Name'"),
        ("airtable: Seats, kommo: {custom_field: Seets}", "fields[0].kommo.custom_field",
         "did you mean 'Seats'"),
        ("airtable: Seats, kommo: {custom_field: 999}", "fields[0].kommo.custom_field", "Region"),
        ("airtable: Notes, kommo: {custom_field: Twin}", "fields[0].kommo.custom_field",
         "use an id: 24, 25"),
        ("airtable: Notes, kommo: {custom_field: Chain}", "fields[0].kommo.custom_field",
         "of type chained_list"),
        ("airtable: Seats, kommo: name", "fields[0].airtable", "allowed: singleLineText"),
        ("airtable: Amount, kommo: tags", "fields[0].airtable", "multipleSelects"),
        ("airtable: VIP, kommo: price", "fields[0].airtable", "number, currency"),
        ("airtable: Sum, kommo: price", "fields[0].airtable", "computed by Airtable (formula)"),
        ("airtable: Files, kommo: name", "fields[0].airtable", "allowed: singleLineText"),
        ("airtable: Kommo Deal ID, kommo: id", "fields[0].airtable",
         "already the field of airtable.key_field"),
        ("airtable: Deal Name, kommo: name, names: {1: a}", "fields[0].names", "only for"),
        ("airtable: Stage, kommo: stage, names: {1: a}", "fields[0].names.1", "7001/501 (New)"),
        ("airtable: Deal Name, kommo: name, create_options: true", "fields[0].create_options",
         "only for single and multiple selects"),
        ("airtable: Created, kommo: created_at, owner: both", "fields[0].owner", "read-only"),
        ("airtable: Owner, kommo: responsible_user_email, owner: airtable", "fields[0].owner",
         "read-only"),
        ("airtable: Notes, kommo: {custom_field: Firm}, owner: airtable", "fields[0].owner",
         "read-only"),
        ("airtable: Notes, kommo: {custom_field: Sum}, owner: both", "fields[0].owner",
         "read-only"),
        ("airtable: Contract Date, kommo: {custom_field: Kickoff}, owner: both", "fields[0].owner",
         "a date field cannot give back Kommo's custom_field:15 (instant) whole; "
         "allowed: kommo, or a field of type dateTime"),
        ("airtable: Notes, kommo: tags, owner: airtable", "fields[0].owner", "multipleSelects"),
        ("airtable: Notes, kommo: price, owner: both", "fields[0].owner", "number, currency"),
        ("airtable: Amount, kommo: {custom_field: Notes}, owner: both", "fields[0].owner",
         "singleLineText"),
        ("airtable: Owner, kommo: name", "fields[0].airtable", "allowed: singleLineText"),
        ("airtable: Client, kommo: main_contact", "fields[0].airtable", "map it under links"),
        ("airtable: Deal Name, kommo: company, owner: both", "fields[0].owner", "read-only"),
    ],
)  # fmt: skip
def test_a_field_that_does_not_fit_is_refused_by_path(entry, path, said):
    message = refused(entry)
    assert message.startswith(f"sync.yaml: {path}: ")
    assert said in message


@pytest.mark.parametrize(
    ("kommo", "path", "said"),
    [
        ("{include: {pipelines: [Sails]}}", "kommo.include.pipelines[0]", "did you mean 'Sales'"),
        ("{include: {stages: [Sales / Wun]}}", "kommo.include.stages[0]", "'Sales / Won'"),
        ("{include: {stages: [Won]}}", "kommo.include.stages[0]", "Enterprise / Won"),
        ("{include: {custom_fields: [{field: Regio, in: [a]}]}}",
         "kommo.include.custom_fields[0].field", "did you mean 'Region'"),
        ("{include: {custom_fields: [{field: Region, in: [EUU]}]}}",
         "kommo.include.custom_fields[0].in", "did you mean 'EU'"),
        ("{exclude: {custom_fields: [{field: VIP, in: [perhaps]}]}}",
         "kommo.exclude.custom_fields[0].in", "false, true"),
        ("{exclude: {custom_fields: [{field: Kickoff, in: [1]}]}}",
         "kommo.exclude.custom_fields[0].field", "cannot be a filter"),
    ],
)  # fmt: skip
def test_a_filter_that_names_the_unknown_is_refused_by_path(kommo, path, said):
    message = refused("airtable: Deal Name, kommo: name", kommo=kommo)
    assert message.startswith(f"sync.yaml: {path}: ")
    assert said in message


def test_two_fields_cannot_fill_one_cell():
    message = refused("airtable: Deal Name, kommo: name", "airtable: fld01, kommo: name")
    assert "fields[1].airtable: 'Deal Name' is already the field of fields[0].airtable" in message


def test_two_fields_cannot_write_one_attribute():
    both = "kommo: responsible_user, owner: both"
    message = refused(f"airtable: Manager, {both}", f"airtable: Owner, {both}")
    assert "fields[1].owner: Kommo's responsible_user is already written by fields[0]" in message
    assert mapping_of(f"airtable: Manager, {both}", "airtable: Owner, kommo: responsible_user")


def test_the_table_and_its_special_fields_are_checked():
    text = config_text("airtable: Deal Name, kommo: name")
    for broken, said in [
        (text.replace("table: Deals", "table: Deels"), "airtable.table: 'Deels' is not a table"),
        (text.replace("Kommo Deal ID", "Amount"), "airtable.key_field: 'Amount' is a currency"),
        (text.replace("Kommo Deal ID", "Nothing"), "airtable.key_field: 'Nothing' is not a field"),
        (text.replace("ID}", "ID, modified_field: Created}"), "it must be lastModifiedTime"),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            resolve(parse_config(broken), kommo_schema(), airtable_schema(), source="sync.yaml")
        assert said in caught.value.message


def test_all_problems_are_named_at_once():
    message = refused(
        "airtable: Nope, kommo: name",
        "airtable: Sum, kommo: price",
        kommo="{include: {pipelines: [Nope]}}",
    )
    assert message.startswith("sync.yaml has 3 problems:")


def test_url_needs_the_accounts_address():
    config = parse_config(config_text("airtable: Website, kommo: url"))
    with pytest.raises(ConfigurationError, match="url needs the address"):
        resolve(config, kommo_schema(), airtable_schema())


# --- fingerprint ---------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_the_meaning_only():
    base = one("airtable: Stage, kommo: stage").fingerprint
    same_meaning = "airtable: fld02, kommo: stage, on_conflict: hold, create_options: true"
    assert one(same_meaning).fingerprint == base
    assert one("airtable: Stage, kommo: stage", zone="America/Lima").fingerprint == base
    assert one("airtable: Stage, kommo: stage, names: {142: Gained}").fingerprint != base
    assert one("airtable: Stage, kommo: pipeline").fingerprint != base
    assert one("airtable: Region, kommo: stage").fingerprint != base


def test_a_days_fingerprint_depends_on_the_zone():
    entry = "airtable: Contract Date, kommo: created_at"
    assert one(entry).fingerprint != one(entry, zone="America/Lima").fingerprint


def test_a_fingerprint_stays_the_same_over_releases():
    # The ledger keeps it: a change here makes every field of every lead meet anew.
    assert one("airtable: Deal Name, kommo: name").fingerprint == "0917ec6efe3d7dbd"


def test_a_field_id_given_as_text_is_that_field():
    field = one("airtable: Region Code, kommo: {custom_field: Region code}")
    value = custom("Region code", {"value": "EU-1"})
    assert field.from_kommo(lead({**value, "field_id": str(value["field_id"])})) == "EU-1"


def test_no_day_is_mapped_where_the_accounts_zone_is_not_told():
    config = parse_config(
        config_text(
            "airtable: Amount, kommo: price",
            "airtable: Contract Date, kommo: {custom_field: Contract date}",
            "airtable: Kickoff, kommo: {custom_field: Kickoff}",
        )
    )
    schema = kommo_schema().model_copy(update={"time_zone": ""})
    with pytest.raises(ConfigurationError) as caught:
        resolve(config, schema, airtable_schema(), base_url=BASE_URL)
    assert "fields[1].kommo: Kommo does not tell the account's time zone" in str(caught.value)
    assert "fields[2]" not in str(caught.value)
