from __future__ import annotations

import pytest

from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.airtable.state import Token
from tests.sandbox.airtable.caller import Caller

TABLES = f"/v0/meta/bases/{BASE_ID}/tables"


def test_whoami_tells_the_email_only_with_its_scope(api: Caller) -> None:
    shown = api.ok("GET", "/v0/meta/whoami")
    assert shown == {"id": "usrSandbox0000000", "email": "sync@example.com"}
    api.token = "patBare"
    api.model.tokens["patBare"] = Token(user="usrSandbox0000000", scopes=[])
    assert api.ok("GET", "/v0/meta/whoami") == {"id": "usrSandbox0000000"}


def test_bases_are_listed_with_the_permission_level(api: Caller) -> None:
    base = {"id": BASE_ID, "name": "Sandbox", "permissionLevel": "create"}
    assert api.ok("GET", "/v0/meta/bases") == {"bases": [base]}


def test_the_seeded_schema_has_deals_and_clients_linked_both_ways(api: Caller) -> None:
    deals, clients = api.ok("GET", TABLES)["tables"]
    assert (deals["name"], clients["name"]) == ("Deals", "Clients")
    fields = {each["name"]: each for each in deals["fields"]}
    assert deals["primaryFieldId"] == fields["Deal Name"]["id"]
    assert {name: each["type"] for name, each in fields.items()} == {
        "Deal Name": "singleLineText",
        "Kommo Deal ID": "number",
        "Stage": "singleSelect",
        "Pipeline": "singleSelect",
        "Amount": "currency",
        "Manager": "singleLineText",
        "Manager Email": "email",
        "Tags": "multipleSelects",
        "Region": "singleSelect",
        "Region Code": "singleLineText",
        "Seats": "number",
        "Contract Date": "date",
        "Kickoff": "dateTime",
        "VIP": "checkbox",
        "Products": "multipleSelects",
        "Website": "url",
        "Notes": "multilineText",
        "Budget": "currency",
        "Source Type": "singleSelect",
        "Created": "dateTime",
        "Closed": "dateTime",
        "Onboarding Status": "singleSelect",
        "Sync Status": "singleLineText",
        "Last Modified": "lastModifiedTime",
        "Client": "multipleRecordLinks",
    }
    assert fields["Kommo Deal ID"]["options"] == {"precision": 0}
    assert fields["Kickoff"]["options"]["timeZone"] == "utc"
    link = next(each for each in clients["fields"] if each["name"] == "Deals")
    assert link["options"]["inverseLinkFieldId"] == fields["Client"]["id"]
    assert fields["Client"]["options"]["inverseLinkFieldId"] == link["id"]
    ids = [each["id"] for each in deals["fields"]] + [deals["id"], deals["views"][0]["id"]]
    assert {len(each) for each in ids} == {17}


def test_a_field_is_created_with_options_and_their_ids(api: Caller) -> None:
    path = f"{TABLES}/{api.table().id}/fields"
    options = {"choices": [{"name": "A"}]}
    made = api.ok("POST", path, body={"name": "New", "type": "singleSelect", "options": options})
    assert made["options"]["choices"][0]["id"].startswith("sel")
    assert api.get(api.create(New="A"))["New"] == "A"


@pytest.mark.parametrize(
    ("definition", "kind"),
    [
        ({"name": "X", "type": "autoNumber"}, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE"),
        ({"name": "X", "type": "nonsense"}, "UNSUPPORTED_FIELD_TYPE_FOR_CREATE"),
        ({"name": "X", "type": "number"}, "INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE"),
        (
            {"name": "X", "type": "multipleRecordLinks", "options": {"linkedTableId": "tblNo"}},
            "INVALID_FIELD_TYPE_OPTIONS_FOR_CREATE",
        ),
        ({"name": "Seats", "type": "email"}, "DUPLICATE_OR_EMPTY_FIELD_NAME"),
        ({"name": "", "type": "email"}, "DUPLICATE_OR_EMPTY_FIELD_NAME"),
    ],
)
def test_a_field_that_cannot_be_created_is_refused(api: Caller, definition, kind: str) -> None:
    path = f"{TABLES}/{api.table().id}/fields"
    assert api.refused("POST", path, body=definition)[:2] == (422, kind)


def test_an_unknown_table_looks_ungranted(api: Caller) -> None:
    body = {"name": "x", "type": "email"}
    assert api.refused("POST", f"{TABLES}/tblNo/fields", body=body)[0] == 403
