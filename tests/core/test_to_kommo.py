from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.codecs import CELL_KINDS
from kommo_airtable_sync.core.destinations import ATTRIBUTES, fields_at, merge_fragments, patched
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.schemas import UnknownReference
from kommo_airtable_sync.core.sources import CUSTOM_KINDS
from kommo_airtable_sync.sandbox.kommo.fields import written
from tests.core.accounts import (
    ENTERPRISE,
    IN_PROGRESS,
    LOST,
    NEW,
    PROPOSAL,
    SALES,
    WON,
    custom,
    enum_id,
    lead,
    mapping_of,
)
from tests.core.pairs import BOTH_WAYS, OPTIONS, ZONES, field_of, kommo_field

PAIRS = [(name, type_) for name, types in BOTH_WAYS.items() for type_ in types]
NAMED = {
    "stage": ["New", "Qualified", "Won", "Lost", "In Progress"],
    "responsible_user": ["Ana Lima", "Bo Diaz"],
    "loss_reason": ["Too dear"],
    "person": ["Ana@acme.example", "twin2@acme.example"],
}
TEXTS = st.text(min_size=1) | st.sampled_from(
    ["\"quoted\" 'x' \\", "👩‍👩‍👧 ✅", "שלום, עולם", "a\r\nb\tc", "null", "0", "ж" * 100_000]
)
# Leap days, and days whose midnight one of ZONES skips or has twice.
DAYS = st.dates(date(1000, 1, 1), date(3000, 1, 1)) | st.sampled_from(
    [date(2024, 2, 29), date(1900, 2, 28), date(2018, 11, 4), date(2019, 2, 16), date(2026, 3, 29),
     date(2026, 10, 25), date(2025, 3, 9), date(2025, 11, 2), date(1970, 1, 1), date(1880, 1, 1)]
)  # fmt: skip
NUMBERS = (
    st.integers(-(2**53), 2**53)
    | st.floats(-1e15, 1e15).filter(lambda x: x == 0 or abs(x) > 1e-20)
    | st.sampled_from([0, -1, 0.1, -0.0, 42.1, 2**53, 1e-7, 0.30000000000000004])
)


def cells(name: str, type_: str) -> st.SearchStrategy:
    """Cells of a type, as the API gives them, that the Kommo source can mean."""
    kind = CELL_KINDS[type_]
    names = NAMED.get("person" if kind == "person" else name)
    if names is None and name in {"custom select", "custom radiobutton"}:
        names = list(OPTIONS)
    words = st.sampled_from(names) if names else TEXTS.filter(str.strip)
    match kind:
        case "person":
            return words.map(lambda email: {"id": "usr1", "email": email})
        case "option":
            return words
        case "text":
            # Names are matched without the blanks around them, which Kommo's options may have.
            words = words.map(str.strip) if names else words
            return words.map(lambda word: {"text": word}) if type_ == "barcode" else words
        case "set":
            return st.lists(st.sampled_from(OPTIONS), min_size=1, unique=True)
        case "flag":
            return st.sampled_from([True, None])
        case "date":
            return DAYS.map(date.isoformat)
        case "instant":
            times = st.times().map(lambda t: t.replace(microsecond=0).isoformat())
            return st.tuples(DAYS, times).map(lambda pair: f"{pair[0]}T{pair[1]}.000Z")
        case _:
            return numbers(name, type_)


def numbers(name: str, type_: str) -> st.SearchStrategy:
    if type_ == "rating":
        return st.integers(1, 5)
    if name == "price":
        cents = st.integers(-(10**12), 10**12)
        return cents.map(lambda n: n / 10_000 if type_ == "percent" else n / 100)
    return NUMBERS.map(lambda n: n / 128) if type_ == "percent" else NUMBERS


def over_the_wire(fragment):
    return json.loads(json.dumps(fragment))


@pytest.mark.parametrize(("name", "type_"), PAIRS)
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_airtable_holds_comes_back_from_kommo_the_same(name, type_, data):
    field = field_of(name, type_, data.draw(st.sampled_from(ZONES)))
    value = field.from_cell(data.draw(cells(name, type_)))
    a_lead = lead(price_with_minor_units=0.0, tags=["cold", "EU"], status_id=PROPOSAL)
    fragment = over_the_wire(field.to_kommo(value, a_lead))
    for each in fragment.get("custom_fields_values", ()):
        # The stand-in reads the write shapes by the reference, not by our code.
        definition = kommo_field(name.removeprefix("custom ")).model_dump()
        each["values"], wrong = written(definition, each["values"], field.schema.zone)
        assert wrong == []
    back = field.from_kommo(patched(a_lead, fragment))
    assert same(back, value)
    assert same(field.from_cell(over_the_wire(field.to_cell(back))), value)


def test_both_ways_is_every_kommo_type_that_can_be_written():
    assert {name for name, types in BOTH_WAYS.items() if types} == {
        *ATTRIBUTES,
        *(f"custom {type_}" for type_ in CUSTOM_KINDS),
    }


# --- what Kommo refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["custom_fields_values.1.values.0.value"], {"Seats"}),
        (["custom_fields_values.0.field_id", "name"], {"Region", "Deal Name"}),
        (["status_id", "pipeline_id"], {"Stage"}),
        (["price"], {"Amount"}),
        (["responsible_user_id"], {"Manager"}),
        (["tags_to_add.0.name"], {"Tags"}),
        (["_embedded.tags.0.name"], {"Tags"}),
        (["custom_fields_values"], set()),
        (["custom_fields_values.9.values"], set()),
        (["custom_fields_values.x"], set()),
        (["updated_by", "", "."], set()),
        ([], set()),
    ],
)
def test_a_path_leads_back_to_its_field(paths, names):
    mapping = mapping_of(
        "airtable: Deal Name, kommo: name, owner: both",
        "airtable: Region, kommo: {custom_field: Region}, owner: both",
        "airtable: Stage, kommo: stage, owner: both",
        "airtable: Amount, kommo: price, owner: both",
        "airtable: Manager, kommo: responsible_user, owner: both",
        "airtable: Tags, kommo: tags, owner: both",
        "airtable: Seats, kommo: {custom_field: Seats}, owner: both",
    )
    values = {
        "Deal Name": "x", "Region": "EU", "Stage": "Proposal", "Amount": Decimal(1),
        "Manager": "Bo Diaz", "Tags": frozenset({"hot"}), "Seats": Decimal(2),
    }  # fmt: skip
    item = mapping.to_kommo({f.id: values[f.name] for f in mapping.fields}, lead())
    found = fields_at(item, paths, mapping.fields)
    assert {f.name for f in mapping.fields if f.id in found} == names


# --- what is sent --------------------------------------------------------------------------------


def field(entry: str, zone: str = "Europe/Moscow"):
    return mapping_of(entry, zone=zone).fields[0]


def sent(entry: str, value, a_lead=None):
    return field(entry).to_kommo(value, a_lead or lead())


def failure(entry: str, value, a_lead=None) -> str:
    with pytest.raises(LeadFailed) as caught:
        field(entry).to_kommo(value, a_lead or lead(), final=True)
    assert caught.value.permanent
    return caught.value.reason


@pytest.mark.parametrize(
    ("name", "target", "value", "values"),
    [
        ("Region code", "Region Code", "x", [{"value": "x"}]),
        ("Region code", "Region Code", None, None),
        ("Seats", "Seats", Decimal("1.50"), [{"value": "1.5"}]),
        ("Seats", "Seats", Decimal(0), [{"value": "0"}]),
        ("Seats", "Seats", None, None),
        ("VIP", "VIP", True, [{"value": True}]),
        ("VIP", "VIP", False, [{"value": False}]),
        ("VIP", "VIP", None, [{"value": False}]),
        ("Region", "Region", "UK", [{"enum_id": enum_id(12, "UK")}]),
        ("Products", "Products", frozenset({"Training", "Core"}),
         [{"enum_id": 1700}, {"enum_id": 1702}]),
        ("Products", "Products", None, None),
        # Midnight of the 24th in Moscow (reference 4.2).
        ("Contract date", "Contract Date", date(2024, 10, 24), [{"value": 1729717200}]),
    ],
)  # fmt: skip
def test_a_custom_field_is_written_as_kommo_takes_it(name, target, value, values):
    fragment = sent(f"airtable: {target}, kommo: {{custom_field: {name}}}", value)
    field_id = custom(name)["field_id"]
    assert fragment == {"custom_fields_values": [{"field_id": field_id, "values": values}]}


@pytest.mark.parametrize(
    ("entry", "value", "fragment"),
    [
        ("airtable: Deal Name, kommo: name", "Big", {"name": "Big"}),
        ("airtable: Amount, kommo: price", Decimal(100), {"price": 100}),
        ("airtable: Amount, kommo: price", None, {"price": 0}),
        ("airtable: Stage, kommo: stage", "Qualified", {"pipeline_id": SALES, "status_id": 502}),
        ("airtable: Manager, kommo: responsible_user", "Bo Diaz", {"responsible_user_id": 92}),
        ("airtable: Manager, kommo: responsible_user", "twin1@ACME.example",
         {"responsible_user_id": 93}),
        ("airtable: Owner, kommo: responsible_user", "ana@acme.example",
         {"responsible_user_id": 91}),
        ("airtable: Manager, kommo: loss_reason", "Too dear", {"loss_reason_id": 31}),
        ("airtable: Manager, kommo: loss_reason", None, {"loss_reason_id": None}),
    ],
)  # fmt: skip
def test_an_attribute_is_written_by_id(entry, value, fragment):
    found = sent(entry, value)
    assert found == fragment
    assert [type(each) for each in found.values()] == [type(each) for each in fragment.values()]


def test_tags_are_written_as_what_changes():
    a_lead = lead(tags=["hot", " old "])
    entry = "airtable: Tags, kommo: tags"
    assert sent(entry, frozenset({"hot", "b", "a"}), a_lead) == {
        "tags_to_add": [{"name": "a"}, {"name": "b"}],
        "tags_to_delete": [{"id": 1}],
    }
    assert sent(entry, None, a_lead) == {"tags_to_delete": [{"id": 0}, {"id": 1}]}
    assert sent(entry, frozenset({"hot", "old"}), a_lead) == {}


def test_a_price_keeps_cents_only_where_the_account_does():
    entry = "airtable: Amount, kommo: price"
    assert sent(entry, Decimal("10.45"), lead(price_with_minor_units=1.0)) == {"price": 10.45}
    assert "Amount: 10.45 has more than the 0 decimals" in failure(entry, Decimal("10.45"))
    said = failure(entry, Decimal("10.455"), lead(price_with_minor_units=None))
    assert "10.455 has more than the 2 decimals" in said
    assert "of type monetary. Correct the record's Amount in Airtable." in said


def test_a_number_that_could_not_be_read_again_is_not_written():
    said = failure("airtable: Seats, kommo: {custom_field: Seats}", Decimal(2**53 + 1))
    assert f"{2**53 + 1} has more digits" in said


@pytest.mark.parametrize(
    ("zone", "day"), [("Pacific/Apia", date(2011, 12, 30)), ("Europe/Moscow", date(1, 1, 1))]
)
def test_a_day_that_kommo_cannot_keep_is_refused(zone, day):
    entry = "airtable: Contract Date, kommo: {custom_field: Contract date}"
    with pytest.raises(LeadFailed, match=f"{day} is not a day that Kommo can keep in {zone}"):
        field(entry, zone).to_kommo(day, lead())


def test_a_moment_loses_its_fraction_only():
    kickoff = field("airtable: Kickoff, kommo: {custom_field: Kickoff}")
    value = kickoff.from_cell("1969-12-31T23:59:59.900Z")
    fragment = kickoff.to_kommo(value, lead())
    assert fragment["custom_fields_values"][0]["values"] == [{"value": -1}]
    assert kickoff.from_kommo(patched(lead(), fragment)) == value.replace(microsecond=0)


# --- names ---------------------------------------------------------------------------------------

STAGE = "airtable: Stage, kommo: stage"


def test_a_stage_is_looked_for_in_the_leads_own_pipeline_first():
    for pipeline_id in (SALES, ENTERPRISE):
        a_lead = lead(pipeline_id=pipeline_id, status_id=LOST)
        assert sent(STAGE, "Won", a_lead) == {"pipeline_id": pipeline_id, "status_id": WON}
    moved = {"pipeline_id": ENTERPRISE, "status_id": IN_PROGRESS}
    assert sent(STAGE, "In Progress", lead(pipeline_id=SALES)) == moved


def test_a_stage_of_many_pipelines_is_refused_for_a_lead_in_none():
    said = failure(STAGE, "New", lead(pipeline_id=None, status_id=None))
    assert "'New' is the name of more than one stage in Kommo" in said
    assert "Sales / New, 7001/501" in said
    assert "Enterprise / New, 7002/601" in said


def test_stages_that_share_a_text_are_told_apart_by_where_the_lead_is():
    entry = f"{STAGE}, names: {{{NEW}: Open, {PROPOSAL}: Open}}"
    assert sent(entry, "Open", lead(status_id=PROPOSAL)) == {
        "pipeline_id": SALES, "status_id": PROPOSAL,
    }  # fmt: skip
    assert "more than one stage" in failure(entry, "Open", lead(status_id=WON))


@pytest.mark.parametrize(
    ("entry", "value", "listed"),
    [
        (STAGE, "Wonn", "(did you mean 'Won'?); allowed: New, Qualified, Proposal"),
        ("airtable: Manager, kommo: responsible_user", "Anna", "allowed: Ana Lima, Bo Diaz, Twin"),
        ("airtable: Owner, kommo: responsible_user", "x@y.example", "allowed: ana@acme.example"),
        ("airtable: Manager, kommo: loss_reason", "Cheap", "allowed: Too dear"),
        ("airtable: Region, kommo: {custom_field: Region}", "Mars", "allowed: EU, UK, US"),
        ("airtable: Products, kommo: {custom_field: Products}", frozenset({"Core", "Mars"}),
         "allowed: Core, Support, Training"),
    ],
)  # fmt: skip
def test_an_unknown_name_asks_for_a_newer_schema_then_is_refused_with_the_list(
    entry, value, listed
):
    with pytest.raises(UnknownReference):
        sent(entry, value)
    said = failure(entry, value)
    assert listed in said
    name = field(entry).name
    assert said.startswith(f"{name}: '")
    assert said.endswith(f"Correct the record's {name} in Airtable.")


def test_two_users_of_one_name_are_told_apart_by_the_leads_own_or_by_email():
    manager = "airtable: Manager, kommo: responsible_user"
    said = failure(manager, "Twin")
    assert "more than one user in Kommo (Twin1@acme.example, twin2@acme.example)" in said
    assert sent(manager, "Twin", lead(responsible_user_id=94)) == {"responsible_user_id": 94}


def test_a_user_who_is_not_active_is_given_no_lead_but_may_keep_one():
    manager = "airtable: Manager, kommo: responsible_user"
    assert sent(manager, "Ana Lima") == {"responsible_user_id": 91}
    said = failure(manager, "Left")
    assert said.count("Left") == 1, "not among the allowed names"
    assert sent(manager, "Left", lead(responsible_user_id=96)) == {"responsible_user_id": 96}


def test_a_user_who_is_gone_may_stay():
    manager = "airtable: Manager, kommo: responsible_user"
    gone = field(manager).to_kommo("User 5", lead(responsible_user_id=5))
    assert gone == {"responsible_user_id": 5}


@pytest.mark.parametrize(
    ("entry", "noun"),
    [
        (STAGE, "stage"),
        ("airtable: Deal Name, kommo: name", "name"),
        ("airtable: Owner, kommo: responsible_user", "responsible user"),
    ],
)
def test_what_a_lead_always_has_cannot_be_cleared(entry, noun):
    for blank in (None, "  "):
        assert f"it is empty, but a Kommo lead always has a {noun}" in failure(entry, blank)


def test_a_renamed_option_is_written_by_its_id():
    region = field("airtable: Region, kommo: {custom_field: Region}")
    a_lead = lead(custom("Region", {"value": "Britain", "enum_id": enum_id(12, "UK")}))
    assert region.from_kommo(a_lead) == "UK"
    assert region.to_kommo("UK", a_lead)["custom_fields_values"][0]["values"] == [
        {"enum_id": enum_id(12, "UK")}
    ]


# --- one lead's item -----------------------------------------------------------------------------


def test_fragments_become_one_item():
    mapping = mapping_of(
        "airtable: Amount, kommo: price",
        "airtable: Seats, kommo: {custom_field: Seats}",
        "airtable: VIP, kommo: {custom_field: VIP}",
        "airtable: Tags, kommo: tags",
        "airtable: Deal Name, kommo: name",
    )
    amount, seats, vip, tags, _ = mapping.fields
    values = {amount.id: Decimal(5), seats.id: None, vip.id: True, tags.id: frozenset({"a"})}
    assert mapping.to_kommo(values, lead()) == {
        "price": 5,
        "custom_fields_values": [
            {"field_id": 13, "values": None},
            {"field_id": 16, "values": [{"value": True}]},
        ],
        "tags_to_add": [{"name": "a"}],
    }
    assert merge_fragments([]) == {}


def test_a_patched_lead_keeps_what_was_not_sent():
    a_lead = lead(custom("Seats", {"value": "1"}), custom("VIP", {"value": True}), tags=["a", "b"])
    item = {
        "name": "New",
        "custom_fields_values": [{"field_id": 13, "values": None}],
        "tags_to_add": [{"name": "c"}],
        "tags_to_delete": [{"id": 0}],
    }
    after = patched(a_lead, item)
    assert after["custom_fields_values"] == [custom("VIP", {"value": True})]
    assert [tag["name"] for tag in after["_embedded"]["tags"]] == ["b", "c"]
    assert (after["name"], after["price"]) == ("New", 1500)
    assert a_lead["name"] == "Lead 1"


def test_a_lead_that_is_no_longer_lost_has_no_reason():
    a_lead = lead(status_id=LOST, loss_reason_id=31)
    assert patched(a_lead, {"name": "x"})["loss_reason_id"] == 31
    assert patched(a_lead, {"status_id": NEW})["loss_reason_id"] is None


REASON = "airtable: Manager, kommo: loss_reason, owner: airtable"


@pytest.mark.parametrize(
    ("values", "changes", "said"),
    [
        ({"Stage": "Lost"}, {}, "Manager: it is empty, but a lost lead needs one. Choose of: Too"),
        ({"Stage": "Lost", "Manager": "Too dear"}, {}, None),
        ({"Stage": "Lost"}, {"loss_reason_id": 31}, None),
        ({"Manager": None}, {"status_id": LOST, "loss_reason_id": 31}, "needs one"),
        ({"Manager": "Too dear"}, {"status_id": LOST}, None),
        ({"Manager": "Too dear"}, {}, "only a lost lead has a loss reason"),
        ({"Stage": "Won"}, {"status_id": LOST, "loss_reason_id": 31}, None),
        ({"Deal Name": "x"}, {"status_id": LOST}, None),
    ],
)
def test_a_lost_lead_has_a_reason_and_no_other_has(values, changes, said):
    stage, name = f"{STAGE}, owner: airtable", "airtable: Deal Name, kommo: name"
    mapping = mapping_of(stage, REASON, name)
    by_id = {field.id: values[field.name] for field in mapping.fields if field.name in values}
    if said is None:
        assert mapping.to_kommo(by_id, lead(**changes))
        return
    with pytest.raises(LeadFailed, match=said):
        mapping.to_kommo(by_id, lead(**changes))


def test_a_lost_lead_needs_no_reason_that_airtable_cannot_give():
    mapping = mapping_of(f"{STAGE}, owner: both", "airtable: Manager, kommo: loss_reason")
    assert mapping.to_kommo({mapping.fields[0].id: "Lost"}, lead())["status_id"] == LOST
