"""Webhook bodies against the captured ones, byte for byte: reference 6.2 and 6.3."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.seed import SALES_ID, lead_field_id
from kommo_airtable_sync.sandbox.kommo.settings import SANDBOX_TOKEN, Account, Settings
from tests.sandbox.kommo.conftest import Caller, TurnedClock

SAMPLES = Path(__file__).parents[2] / "data" / "webhook-samples"
CODES = [
    f"{action}_{entity}"
    for action in ("add", "update", "delete", "restore", "note", "responsible")
    for entity in ("lead", "contact", "company")
]


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.form").read_bytes()


class Scene:
    """An account like the captured one, told of by hooks of the codes asked for."""

    def __init__(self, account: int, subdomain: str, user: int, codes: list[str] = CODES) -> None:
        self.clock = TurnedClock()
        where = Account(id=account, subdomain=subdomain, domain="amocrm.ru")
        self.model = KommoModel(
            self.clock, account=where, settings=Settings(requests_per_second=1000)
        )
        self.state = self.model.state
        self.state.add_user(user, "U", admin=True)
        self.model.tokens[SANDBOX_TOKEN] = user
        self.call = Caller(self.model, self.clock)
        self.call("POST", "webhooks", {"destination": "https://x.test", "settings": codes})

    def stage(self, pipeline_id: int, *status_ids: int) -> None:
        self.state.add_pipeline(pipeline_id, "P", dict.fromkeys(status_ids, "S"))

    def at(self, epoch: int) -> None:
        self.clock.at = datetime.fromtimestamp(epoch, timezone.utc)

    def sent(self) -> bytes:
        (delivery,) = self.model.take_due_hooks()
        assert delivery.headers["content-length"] == str(len(delivery.body))
        return delivery.body


def values(field_id: int, value: Any) -> dict[str, Any]:
    return {"field_id": field_id, "values": [{"value": value}]}


def test_cap_1_lead_add_and_update():
    scene = Scene(32427762, "etesttask", 10000698)
    scene.stage(9621010, 76789230)
    scene.state.add_field("leads", 752009, "Поле1", "text")
    scene.state.add_field("leads", 752011, "Поле2", "text")
    scene.state.start_ids_at("leads", 32966269)
    scene.at(1748268669)
    lead_id = scene.call.lead(name="Test", price=999)
    assert scene.sent() == sample("cap-1-lead-add")
    scene.at(1748268812)
    fields = [values(752009, "1"), values(752011, "2")]
    scene.call("PATCH", f"leads/{lead_id}", {"price": 9919, "custom_fields_values": fields})
    assert scene.sent() == sample("cap-1-lead-update")


def test_cap_1_contact_add_and_update():
    scene = Scene(32427762, "etesttask", 10000698)
    add, work = scene.state.add_field, ("W", "WORK")
    add("contacts", 735647, "Должность", "text", code="POSITION")
    add("contacts", 735649, "Телефон", "multitext", code="PHONE", enums=((718321, *work),))
    add("contacts", 735651, "Email", "multitext", code="EMAIL", enums=((718333, *work),))
    scene.state.start_ids_at("contacts", 37054081)
    scene.at(1748289231)
    scene.call("POST", "contacts", [{"name": "Абиба абибович"}])
    assert scene.sent() == sample("cap-1-contact-add")
    scene.at(1748292937)
    fields = [values(735647, "555"), values(735649, "333"), values(735651, "444")]
    scene.call("PATCH", "contacts/37054081", {"custom_fields_values": fields})
    assert scene.sent() == sample("cap-1-contact-update")


def test_cap_2_lead_add_update_by_the_robot_and_delete():
    scene = Scene(16700680, "unirock", 2852878)
    scene.stage(936736, 17944873)
    scene.state.add_field("leads", 957901, "test_id", "text")
    scene.state.start_ids_at("leads", 30052055)
    scene.at(1744532875)
    lead_id = scene.call.lead(name="TEST MISHA (SORRY)")
    assert scene.sent() == sample("cap-2-lead-add")
    scene.at(1744532876)
    fields = [values(957901, "30052055")]
    scene.call("PATCH", f"leads/{lead_id}", {"updated_by": 0, "custom_fields_values": fields})
    assert scene.sent() == sample("cap-2-lead-update")
    scene.call.control("DELETE", f"leads/{lead_id}")
    assert scene.sent() == sample("cap-2-lead-delete")


def test_cap_3_status_with_tags_date_and_choices_and_the_account_last():
    scene = Scene(16503244, "irestoremoldova", 1760815, ["status_lead"])
    scene.model.settings.hook_account_last = True
    scene.state.account.timezone = "Europe/Chisinau"
    scene.state.add_user(1764433, "R")
    scene.stage(788512, 16525555, 16525558)
    choices = [(496779, "Stare Device", 959761, "Zghirieturi minore"), (481313, "Tip Lead", 932119, "Lead nou"),
               (481307, "Unde au aflat?", 932073, "Google")]  # fmt: skip
    scene.state.add_field("leads", 491053, "IMEI/SERIE", "text", sort=1)
    scene.state.add_field("leads", 481305, "Cind trebuie?", "date", sort=2)
    for n, (field_id, name, *choice) in enumerate(choices, 3):
        scene.state.add_field(
            "leads", field_id, name, "select", sort=n, enums=((choice[0], choice[1], None),)
        )
    scene.state.rows["leads/tags"][482205] = {"id": 482205, "name": "Sasa", "color": None}
    scene.state.start_ids_at("leads", 30267969)
    scene.at(1615894221)
    fields = [values(491053, "1"), values(481305, 1615870000)]
    fields += [values(field_id, value) for field_id, _, _, value in choices]
    lead_id = scene.call.lead(
        name="apple tv 3",
        price=1,
        created_by=1764433,
        responsible_user_id=1764433,
        custom_fields_values=fields,
        tags_to_add=[{"id": 482205}],
    )
    scene.at(1615985846)
    scene.call("PATCH", f"leads/{lead_id}", {"status_id": 16525558})
    assert scene.sent() == sample("cap-3-lead-status")


def test_cap_4_digital_pipeline_hook():
    scene = Scene(30307558, "anyor", 1, ["add_contact"])
    scene.model.settings.dp_destination = "https://dp.test"
    scene.stage(6344290, 54435014, 54423922)
    scene.state.start_ids_at("leads", 10754147)
    lead_id = scene.call.lead(name="x")
    scene.call("PATCH", f"leads/{lead_id}", {"status_id": 54423922})
    assert scene.sent() == sample("cap-4-dp-lead-status")


@pytest.fixture
def sent(call: Caller):
    """Bodies sent since the last call, as ordered pairs with P for the entity's prefix."""
    codes = [*CODES, "status_lead"]
    call("POST", "webhooks", {"destination": "https://x.test", "settings": codes})

    def taken() -> list[dict[str, str]]:
        return [
            dict(parse_qsl(each.body.decode(), keep_blank_values=True))
            for each in call.model.take_due_hooks()
        ]

    return taken


def test_the_other_field_types_are_spelled_the_old_way(call: Caller, sent):
    region, vip, source, kickoff, products = (
        lead_field_id(name) for name in ("Region", "VIP", "Source type", "Kickoff", "Products")
    )
    birthday = 1100100
    call.model.state.add_field("leads", birthday, "Born", "birthday", sort=900)
    call.lead(
        custom_fields_values=[
            values(region, "EU"),
            values(vip, True),
            values(source, "Partner"),
            values(kickoff, 1772452800),
            {"field_id": products, "values": [{"value": "CRM"}, {"value": "Chat"}]},
            values(birthday, "1980-01-12T00:00:00+01:00"),
        ]
    )
    (body,) = sent()
    names = {body[key]: key[:-6] for key in body if key.endswith("][name]") and "custom" in key}
    spelled = {
        (name, key.removeprefix(prefix)): value
        for name, prefix in names.items()
        for key, value in body.items()
        if key.startswith(prefix + "[values]")
    }
    assert spelled == {
        ("Region", "[values][0][value]"): "EU",
        ("Region", "[values][0][enum]"): str(region * 10),
        ("VIP", "[values][0][value]"): "1",
        ("Source type", "[values][value]"): "Partner",
        ("Source type", "[values][enum]"): str(source * 10 + 2),
        ("Kickoff", "[values][0][value]"): "1772452800",
        ("Products", "[values][0][value]"): "CRM",
        ("Products", "[values][0][enum]"): str(products * 10),
        ("Products", "[values][1][value]"): "Chat",
        ("Products", "[values][1][enum]"): str(products * 10 + 1),
        ("Born", "[values][0][value]"): "12.01.1980",
    }


def test_a_stage_and_responsible_change_is_told_three_times(call: Caller, sent):
    lead_id = call.lead(name="a")
    sent()
    call(
        "PATCH",
        f"leads/{lead_id}",
        {"status_id": SALES_ID * 10 + 2, "responsible_user_id": 11087002},
    )
    bodies = sent()
    for body, action in zip(bodies, ("update", "status", "responsible"), strict=True):
        prefix = f"leads[{action}][0]"
        assert body[f"{prefix}[old_status_id]"] == str(SALES_ID * 10 + 1)
        assert body[f"{prefix}[old_responsible_user_id]"] == "11087001"
        assert f"{prefix}[old_pipeline_id]" not in body


def test_a_contacts_responsible_change_arrives_under_update(call: Caller, sent):
    made = call("POST", "contacts", [{"name": "A"}]).rows("contacts")[0]["id"]
    sent()
    call("PATCH", f"contacts/{made}", {"responsible_user_id": 11087002})
    bodies = sent()
    assert [body["contacts[update][0][old_responsible_user_id]"] for body in bodies] == [
        "11087001"
    ] * 2


def test_companies_travel_under_contacts_with_their_type(call: Caller, sent):
    made = call("POST", "companies", [{"name": "Acme"}]).rows("companies")[0]["id"]
    lead = call.lead(_embedded={"companies": [{"id": made}]})
    call("PATCH", f"companies/{made}", {"name": "Acme 2"})
    call.control("DELETE", f"companies/{made}")
    added, _, updated, deleted = sent()
    assert added["contacts[add][0][type]"] == "company"
    assert updated[f"contacts[update][0][linked_leads_id][{lead}][ID]"] == str(lead)
    assert deleted["contacts[delete][0][type]"] == "company"


def test_a_contact_names_its_company(call: Caller, sent):
    made = call("POST", "companies", [{"name": "Acme"}]).rows("companies")[0]["id"]
    call("POST", "contacts", [{"name": "A", "_embedded": {"companies": [{"id": made}]}}])
    body = sent()[1]
    assert body["contacts[add][0][company_name]"] == "Acme"
    assert body["contacts[add][0][linked_company_id]"] == str(made)


def test_restore_carries_the_whole_lead_and_a_note_its_own_spelling(call: Caller, sent):
    lead_id = call.lead(name="a")
    call.control("DELETE", f"leads/{lead_id}")
    call.control("POST", f"leads/{lead_id}/restore")
    call.control("POST", f"leads/{lead_id}/notes", {"text": "note text"})
    restored, noted = sent()[2:]
    assert restored["leads[restore][0][name]"] == "a"
    note = {key.removeprefix("leads[note][0][note]"): value for key, value in noted.items()}
    assert list(note)[3:] == [
        f"[{key}]"
        for key in [
            "text",
            "attachement",
            "date_create",
            "note_type",
            "element_type",
            "element_id",
            "catalog_id",
            "group_id",
            "timestamp_x",
            "account_id",
            "metadata",
            "created_by",
            "modified_by",
            "main_user_id",
            "id",
            "created_at",
            "updated_at",
        ]
    ]
    assert (note["[element_id]"], note["[text]"]) == (str(lead_id), "note text")
    assert note["[date_create]"] == "2026-03-02 13:00:00"
    assert note["[metadata]"].startswith('{"event_source":{"id":11087002,"author_name":"Zoë')


def test_several_changes_share_one_post_when_asked(call: Caller, sent):
    call.model.settings.hooks_per_post = 3
    call("POST", "leads", [{"name": str(n)} for n in range(4)])
    first, second = sent()
    assert [first[f"leads[add][{n}][name]"] for n in range(3)] == ["0", "1", "2"]
    assert second["leads[add][0][name]"] == "3"
    ids = [int(first[f"leads[add][{n}][id]"]) for n in range(2)]
    call("PATCH", "leads", [{"id": each, "status_id": 142} for each in ids])
    mixed, _ = sent()
    assert {key.split("[0]")[0] for key in mixed if "[0][id]" in key} == {
        "leads[update]",
        "leads[status]",
    }


def test_changes_by_api_fire_hooks_and_an_idle_write_does_not(call: Caller, sent):
    lead_id = call.lead(name="a", price=1)
    (body,) = sent()
    assert body["leads[add][0][modified_user_id]"] == "11087001"
    call("PATCH", f"leads/{lead_id}", {"price": 1})
    assert sent() == []
