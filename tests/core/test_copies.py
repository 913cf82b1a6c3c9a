"""What a copy holds of its own, for any cells."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.copies import fingerprint, group_of, own_fields
from kommo_airtable_sync.core.field_mapping import KeyField
from kommo_airtable_sync.core.filters import Filters
from kommo_airtable_sync.core.mapping import Mapping
from kommo_airtable_sync.core.schemas import AirtableField, AirtableTable

TYPES = {
    "key": "number",
    "text": "multilineText",
    "box": "checkbox",
    "amount": "number",
    "links": "multipleRecordLinks",
    "files": "multipleAttachments",
    "person": "singleCollaborator",
    "changed": "lastModifiedTime",
    "sum": "rollup",
    "status": "singleLineText",
}
FIELDS = tuple(AirtableField(id=name, name=f"The {name}", type=TYPES[name]) for name in TYPES)
TABLE = Mapping(
    AirtableTable(id="tbl", name="Deals", fields=FIELDS),
    KeyField("key", "The key", "number"),
    (),
    Filters(),
    status=FIELDS[-1],
)
NAMES = st.text("ab", max_size=1)
FILE = st.builds(lambda id_, url: {"id": id_, "url": url}, st.sampled_from("ab"), NAMES)
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "text": st.sampled_from(["", "\n", "a", "b"]),
    "box": st.booleans(),
    "amount": st.sampled_from([0, 1, 1.5]),
    "links": st.lists(st.sampled_from(["rec1", "rec2"]), unique=True),
    "files": st.lists(FILE, max_size=2),
    "person": st.builds(lambda id_, name: {"id": id_, "name": name}, st.sampled_from("ab"), NAMES),
    "changed": NAMES,
    "sum": st.sampled_from([0, {"specialValue": "NaN"}]),
    "status": NAMES,
    "added lately": NAMES,
}
RECORD_CELLS = st.fixed_dictionaries({}, optional=CELLS)


@given(RECORD_CELLS, RECORD_CELLS)
def test_a_copy_with_nothing_of_its_own_adds_nothing_to_the_kept_record(kept: Any, copy: Any):
    own = own_fields(kept, copy, TABLE)
    merged = {**kept, **{id_: cell for id_, cell in copy.items() if cell not in ("", "\n", [])}}
    merged = {id_: cell for id_, cell in merged.items() if id_ != "box" or cell or kept.get(id_)}
    merged["box"] = bool(kept.get("box") or copy.get("box"))
    assert (not own) == (fingerprint(merged, TABLE) == fingerprint(kept, TABLE))


@given(RECORD_CELLS)
def test_what_is_computed_or_told_and_how_it_is_spelt_does_not_count(cells: Any):
    other = {**cells, "changed": "later", "status": "ok", "key": 5}
    other |= {"links": [*reversed(cells.get("links", []))]}
    other |= {"files": [{**each, "url": "expired"} for each in cells.get("files", [])]}
    assert own_fields(cells, other, TABLE) == ()
    assert fingerprint(other, TABLE) == fingerprint({**cells, "key": 5}, TABLE)


def test_fields_are_named_and_zero_is_a_value():
    copy = {"amount": 0, "box": False, "text": "", "fldNew": 1}
    assert own_fields({"amount": 5}, copy, TABLE) == ("The amount", "fldNew")
    assert own_fields({}, {"box": True, "amount": 0}, TABLE) == ("The amount", "The box")


def test_the_ledger_s_record_is_kept_before_older_ones_and_another_lead_s_never_before_those():
    def record(id_: str, created: str) -> dict[str, Any]:
        return {"id": id_, "createdTime": created, "fields": {"key": 5}}

    records = [record("rec1", "2026-01-01"), record("rec2", "2026-01-02"), record("rec3", "2026")]
    assert group_of("lead:5", records, {"rec2": "lead:5"}, TABLE).kept == "rec2"
    assert group_of("lead:5", records, {"rec3": "lead:6"}, TABLE).kept == "rec1"
    (first, other) = group_of("lead:5", records, {"rec3": "lead:6"}, TABLE).copies
    assert (first.is_removable, other.is_removable, other.record_of) == (True, False, "lead:6")
