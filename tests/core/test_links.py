from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.config import parse_config
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.field_mapping import OptionMissing
from kommo_airtable_sync.core.links import company_id, main_contact_id
from kommo_airtable_sync.core.mapping import Mapping, resolve, wanted_embeds
from tests.core.accounts import BASE_URL, airtable_schema, config_text, kommo_schema, lead

CLIENT = "airtable: Client, kommo: main_contact, table: Clients, key_field: Kommo Contact ID"
FIRM = "airtable: Firm, kommo: company, table: Firms, key_field: Kommo Company ID"
CONTACT = {
    "id": 7,
    "name": "Ana Maria Lima",
    "first_name": "Ana Maria",
    "last_name": "Lima",
    "responsible_user_id": 91,
    "updated_at": 1760976072,
    "custom_fields_values": [
        {"field_id": 41, "values": [{"value": "+7 1", "enum_id": 4100}, {"value": "+7 2"}]},
        {"field_id": 42, "values": [{"value": ""}, {"value": "ana@home.example"}]},
        {"field_id": 43, "values": [{"value": "Buyer", "enum_id": 4300}]},
    ],
    "_embedded": {"tags": [], "companies": [{"id": 9}]},
}


def text_of(*links: str, fields: tuple[str, ...] = ("airtable: Deal Name, kommo: name",)) -> str:
    listed = ", ".join(f"{{{link}}}" for link in links)
    return f"{config_text(*fields)}\nlinks: [{listed}]"


def resolved(*links: str, fields: tuple[str, ...] = ("airtable: Deal Name, kommo: name",)):
    config = parse_config(text_of(*links, fields=fields))
    return resolve(config, kommo_schema(), airtable_schema(), base_url=BASE_URL)


def linked_to(*fields: str, link: str = CLIENT) -> Mapping:
    listed = ", ".join(f"{{{field}}}" for field in fields)
    return resolved(f"{link}, fields: [{listed}]").links[0].mapping


def refused(*links: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolved(*links)
    return caught.value.message


# --- what links to what --------------------------------------------------------------------------


def test_a_link_is_a_field_of_the_deals_and_a_table_of_its_own():
    mapping = resolved(CLIENT, FIRM)
    contact, company = mapping.links
    assert [field.name for field in mapping.fields] == ["Deal Name", "Client", "Firm"]
    assert (contact.kind, contact.kommo, contact.target.name) == (
        "contact",
        "main_contact",
        "Client",
    )
    assert (company.kind, company.kommo, company.target.id) == (
        "company",
        "company",
        mapping.fields[2].id,
    )
    assert (contact.mapping.table_id, contact.mapping.table_name) == (
        "tblClients0000000",
        "Clients",
    )
    assert contact.mapping.key_cell(7) == 7
    assert company.mapping.key_cell(9) == "9"
    assert company.mapping.lead_id_of("9") == 9


def test_a_deals_link_is_the_record_of_its_contact():
    field = resolved(CLIENT).fields[1]
    linked = lead(_linked={"main_contact": "rec7", "company": "rec9"})
    assert field.owner == "kommo"
    assert field.from_kommo(linked) == frozenset({"rec7"})
    assert field.from_kommo(lead(_linked={"company": "rec9"})) is None
    assert field.from_kommo(lead()) is None
    assert field.to_cell(frozenset({"rec7"})) == ["rec7"]
    assert field.to_cell(None) is None
    assert field.from_cell(["rec8", "rec7"]) == frozenset({"rec7", "rec8"})
    assert field.from_cell([]) is None
    assert not field.needs_typecast(frozenset({"rec7"}))


@given(st.sampled_from(["main_contact", "company"]), st.text(min_size=1).filter(str.strip))
def test_a_link_that_is_written_reads_back_the_same(name, record_id):
    record_id = record_id.strip()
    field = resolved(CLIENT if name == "main_contact" else FIRM).fields[1]
    value = field.from_kommo(lead(_linked={name: record_id}))
    assert field.from_cell(field.to_cell(value)) == value == frozenset({record_id})


def test_a_links_fingerprint_changes_with_the_table_it_leads_to():
    schema = airtable_schema()
    loose = [
        field.model_copy(update={"linked_table_id": None}) for field in schema.tables[0].fields
    ]
    deals = schema.tables[0].model_copy(update={"fields": tuple(loose)})
    base = schema.model_copy(update={"tables": (deals, *schema.tables[1:])})
    other = CLIENT.replace("Clients", "Firms").replace("Kommo Contact ID", "Kommo Company ID")
    fingerprints = {
        resolve(parse_config(text_of(link)), kommo_schema(), base).fields[1].fingerprint
        for link in (CLIENT, other)
    }
    assert len(fingerprints) == 2
    assert resolved(CLIENT).fields[1].fingerprint in fingerprints


# --- the linked records --------------------------------------------------------------------------


def test_a_contact_is_read_like_a_lead():
    mapping = linked_to(
        "airtable: Name, kommo: name",
        "airtable: Phone, kommo: {custom_field: PHONE}",
        "airtable: All Phones, kommo: {custom_field: Phone}",
        "airtable: Email, kommo: {custom_field: 42}",
        "airtable: Role, kommo: {custom_field: Role}",
        "airtable: Link, kommo: url",
        "airtable: Manager, kommo: responsible_user",
    )
    assert {field.owner for field in mapping.fields} == {"kommo"}
    assert {f.name: f.to_cell(f.from_kommo(CONTACT)) for f in mapping.fields} == {
        "Name": "Ana Maria Lima",
        "Phone": "+7 1",
        "All Phones": "+7 1, +7 2",
        "Email": "ana@home.example",
        "Role": "Buyer",
        "Link": "https://acme.kommo.com/contacts/detail/7",
        "Manager": {"email": "ana@acme.example"},
    }


def test_a_contacts_names_and_id_can_be_shown():
    shown = {
        name: linked_to(f"airtable: Name, kommo: {name}").fields[0].from_kommo(CONTACT)
        for name in ("first_name", "last_name", "id")
    }
    assert shown == {"first_name": "Ana Maria", "last_name": "Lima", "id": "7"}


def test_a_contact_without_fields_has_blanks():
    mapping = linked_to("airtable: Phone, kommo: {custom_field: PHONE}")
    blank = {**CONTACT, "custom_fields_values": None}
    assert mapping.fields[0].from_kommo(blank) is None


def test_a_company_has_fields_and_an_address_of_its_own():
    mapping = linked_to(
        "airtable: Link, kommo: url", "airtable: Phone, kommo: {custom_field: PHONE}", link=FIRM
    )
    company = {"id": 9, "custom_fields_values": [{"field_id": 51, "values": [{"value": "1"}]}]}
    assert [field.from_kommo(company) for field in mapping.fields] == [
        "https://acme.kommo.com/companies/detail/9",
        "1",
    ]


def test_a_missing_option_of_a_contact_is_refused_or_made():
    contact = {
        "id": 7,
        "custom_fields_values": [{"field_id": 43, "values": [{"value": "User", "enum_id": 4301}]}],
    }
    entry = "airtable: Role, kommo: {custom_field: Role}"
    role = linked_to(entry).fields[0]
    with pytest.raises(OptionMissing, match="create_options"):
        role.to_cell(role.from_kommo(contact))
    making = linked_to(f"{entry}, create_options: true")
    assert making.fields[0].to_cell("User") == "User"
    assert making.needs_typecast({making.fields[0].id: "User"})


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "path", "said"),
    [
        (CLIENT.replace("Client,", "Clientt,"), "airtable", "did you mean 'Client'"),
        (CLIENT.replace("airtable: Client", "airtable: Amount"), "airtable",
         "'Amount' is a currency field; it must be multipleRecordLinks"),
        (CLIENT.replace("airtable: Client", "airtable: Firm"), "airtable",
         "'Firm' links to another table than 'Clients'"),
        (CLIENT.replace("Clients", "Clintes"), "table", "did you mean 'Clients'"),
        (CLIENT.replace("Kommo Contact ID", "Email"), "key_field", "is a email field"),
        (CLIENT + ", fields: [{airtable: Nope, kommo: name}]", "fields[0].airtable",
         "'Nope' is not a field of table 'Clients'"),
        (CLIENT + ", fields: [{airtable: Kommo Contact ID, kommo: id}]", "fields[0].airtable",
         "already the field of links[0].key_field"),
        (CLIENT + ", fields: [{airtable: Name, kommo: {custom_field: Region}}]",
         "fields[0].kommo.custom_field", "not a custom field of Kommo contacts"),
        (CLIENT + ", fields: [{airtable: Manager, kommo: name}]", "fields[0].airtable",
         "cannot hold Kommo's name (text)"),
        (FIRM + ", fields: [{airtable: Name, kommo: first_name}]", "fields[0].kommo",
         "a company has no first_name"),
    ],
)  # fmt: skip
def test_a_link_that_does_not_fit_is_refused_by_path(link, path, said):
    message = refused(link)
    assert message.startswith(f"sync.yaml: links[0].{path}: ")
    assert said in message


def test_there_is_one_link_a_kind_and_one_kind_a_table():
    twice = refused(CLIENT, FIRM.replace("kommo: company", "kommo: main_contact"))
    assert "links[1].kommo: 'main_contact' is already used by links[0].kommo" in twice
    shared = refused(CLIENT, CLIENT.replace("main_contact", "company").replace("Client,", "Firm,"))
    assert "links[1].table: 'Clients' is already used by links[0].table" in shared
    deals = refused("airtable: Client, kommo: company, table: Deals, key_field: Seats")
    assert "links[0].table: 'Deals' is already used by airtable.table" in deals


def test_a_field_of_the_deals_is_a_link_or_a_value():
    message = refused(CLIENT, FIRM.replace("airtable: Firm", "airtable: Client"))
    assert "links[1].airtable: 'Client' is already the field of links[0].airtable" in message


# --- which ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contacts", "found"),
    [
        ([{"id": 1, "is_main": False}, {"id": 2, "is_main": True}], 2),
        ([{"id": 1, "is_main": False}, {"id": 2, "is_main": False}], 1),
        ([{"id": 3}], 3),
        ([], None),
        (None, None),
    ],
)
def test_the_main_contact_is_the_one_that_is_marked_else_the_first(contacts, found):
    assert main_contact_id(lead(_embedded={"contacts": contacts})) == found


def test_a_lead_has_one_company_or_none():
    assert company_id(lead(_embedded={"companies": [{"id": 29610174}]})) == 29610174
    assert company_id(lead()) is None
    assert company_id({"id": 1, "_embedded": None}) is None


@pytest.mark.parametrize(
    ("fields", "links", "embeds", "names"),
    [
        ((), (), (), set()),
        (("airtable: Seats, kommo: source",), (), ("source_id",), set()),
        ((), (CLIENT,), ("contacts",), set()),
        ((), (FIRM,), (), set()),
        (("airtable: Manager, kommo: company",), (), (), {"company"}),
        (("airtable: Manager, kommo: main_contact", "airtable: Seats, kommo: source"), (FIRM,),
         ("contacts", "source_id"), {"main_contact"}),
    ],
)  # fmt: skip
def test_kommo_is_asked_for_what_the_mapping_needs(fields, links, embeds, names):
    mapping = resolved(*links, fields=("airtable: Deal Name, kommo: name", *fields))
    assert wanted_embeds(mapping) == embeds
    assert mapping.needs_names == names


def test_a_contacts_number_is_read_exactly():
    mapping = linked_to("airtable: Name, kommo: id")
    assert mapping.fields[0].source.read({"id": 2**53 + 1}, False) == Decimal(2**53 + 1)
