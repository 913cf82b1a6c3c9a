from __future__ import annotations

import contextlib
import time
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.webhooks import ENTITIES_MAX, Unreadable, accepted, parse_kommo

SAMPLES = Path(__file__).parents[1] / "data" / "webhook-samples"
ACCOUNT = {"account[id]": "1", "account[subdomain]": "acme"}


def form(*parts: dict[str, str]) -> bytes:
    return urlencode([pair for part in parts for pair in part.items()]).encode()


def entity(prefix: str, **fields: str) -> dict[str, str]:
    return {f"{prefix}[{name}]": value for name, value in fields.items()}


def utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


@pytest.mark.parametrize(
    ("sample", "key", "kind", "occurred_at", "state", "always_read"),
    [
        ("cap-1-lead-add", "lead:32966269", "add", 1748268669, "pending", False),
        ("cap-1-lead-update", "lead:32966269", "update", 1748268812, "pending", False),
        ("cap-1-contact-add", "contact:37054081", "add", 1748289231, "ignored", True),
        ("cap-1-contact-update", "contact:37054081", "update", 1748292937, "ignored", True),
        ("cap-2-lead-add", "lead:30052055", "add", 1744532875, "pending", False),
        ("cap-2-lead-update", "lead:30052055", "update", 1744532876, "pending", False),
        ("cap-2-lead-delete", "lead:30052055", "delete", None, "pending", True),
        ("cap-3-lead-status", "lead:30267969", "status", 1615985846, "pending", False),
        ("cap-4-dp-lead-status", "lead:10754147", "status", None, "pending", True),
    ],
)
def test_every_captured_body_gives_its_one_event(
    sample, key, kind, occurred_at, state, always_read
):
    [event] = parse_kommo((SAMPLES / f"{sample}.form").read_bytes())

    assert (event.key, event.kind, event.source) == (key, kind, "kommo")
    assert event.occurred_at == (occurred_at and utc(occurred_at))
    assert (event.state, event.always_read) == (state, always_read)


def test_every_sample_file_is_tested():
    assert len(list(SAMPLES.glob("*.form"))) == 9


def test_the_payload_is_the_nested_entity_with_its_texts_unchanged():
    [event] = parse_kommo((SAMPLES / "cap-3-lead-status.form").read_bytes())

    assert event.payload is not None
    assert event.payload["name"] == "apple tv 3"
    assert event.payload["tags"] == {"0": {"id": "482205", "name": "Sasa"}}
    assert event.payload["custom_fields"]["1"]["values"] == {"0": "1615845600"}
    assert "account" not in event.payload


def test_many_entities_and_actions_in_one_body_all_count():
    body = form(
        ACCOUNT,
        entity("leads[add][0]", id="1", updated_at="1700000000"),
        entity("leads[add][1]", id="2", updated_at="1700000001"),
        entity("leads[status][0]", id="1", updated_at="1700000002"),
        entity("contacts[update][0]", id="7", type="contact"),
        entity("contacts[update][1]", id="8", type="company"),
        entity("task[add][0]", id="9"),
        entity("unsorted[delete][0]", id="10", action="accept"),
    )
    events = parse_kommo(body)

    assert [(event.key, event.kind) for event in events] == [
        ("lead:1", "add"),
        ("lead:2", "add"),
        ("lead:1", "status"),
        ("contact:7", "update"),
        ("company:8", "update"),
    ]
    assert accepted(events) == 3
    assert accepted(parse_kommo(body, links=True)) == 5


def test_the_account_block_may_come_last():
    lead = entity("leads[update][0]", id="5", updated_at="1700000000")
    assert parse_kommo(form(ACCOUNT, lead)) == parse_kommo(form(lead, ACCOUNT))


@pytest.mark.parametrize(
    ("element_type", "head", "key"),
    [
        ("2", "leads", "lead:15320411"),
        ("1", "contacts", "contact:15320411"),
        ("3", "contacts", "company:15320411"),
        ("", "leads", "lead:15320411"),
    ],
)
def test_a_note_is_about_the_entity_it_hangs_on(element_type, head, key):
    body = form(
        entity(
            f"{head}[note][0][note]",
            id="4600471",
            element_type=element_type,
            element_id="15320411",
            updated_at="1726580329",
        )
    )
    [event] = parse_kommo(body)

    assert (event.key, event.kind, event.occurred_at) == (key, "note", utc(1726580329))


@pytest.mark.parametrize("action", ["delete", "restore"])
def test_delete_and_restore_are_read_whatever_their_time_says(action):
    [event] = parse_kommo(form(entity(f"leads[{action}][0]", id="5", updated_at="1700000000")))
    assert event.always_read
    assert event.occurred_at == utc(1700000000)


def test_last_modified_stands_in_for_a_missing_updated_at():
    [event] = parse_kommo(form(entity("leads[update][0]", id="5", last_modified="1700000000")))
    assert event.occurred_at == utc(1700000000)
    assert not event.always_read


@pytest.mark.parametrize("stamp", ["", "0", "-5", "soon", "9" * 400, "253402300800", "१२३"])
def test_a_time_that_is_none_means_read_always(stamp):
    [event] = parse_kommo(form(entity("leads[update][0]", id="5", updated_at=stamp)))
    assert event.occurred_at is None
    assert event.always_read


@pytest.mark.parametrize("lead_id", ["", "0", "-1", "1.5", "abc", "9" * 20, str(2**63), "٣"])
def test_a_lead_without_a_readable_id_is_quarantined_and_its_neighbour_is_not(lead_id):
    body = form(entity("leads[add][0]", id=lead_id, name="odd"), entity("leads[add][1]", id="2"))
    odd, good = parse_kommo(body)

    assert (odd.key, odd.state) == ("", "quarantined")
    assert odd.payload is not None
    assert odd.payload["entity"] == {"id": lead_id, "name": "odd"}
    assert (good.key, good.state) == ("lead:2", "pending")


def test_an_odd_contact_matters_only_if_contacts_do():
    body = form(entity("contacts[add][0]", name="nobody"))
    assert [event.state for event in parse_kommo(body)] == ["ignored"]
    assert [event.state for event in parse_kommo(body, links=True)] == ["quarantined"]


def test_entities_without_a_number_are_read_all_the_same():
    assert [event.key for event in parse_kommo(b"leads[add][id]=5&leads[add][name]=x")] == [
        "lead:5"
    ]
    assert [event.key for event in parse_kommo(b"leads[add][1][id]=5&leads[add][][id]=6")] == [
        "lead:5",
        "lead:6",
    ]


@pytest.mark.parametrize("body", [b"account%5Bid%5D=1", b"task[add][0][id]=1", b"talk[add][0]=1"])
def test_a_body_about_other_things_is_readable_and_empty(body):
    assert parse_kommo(body) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no key"),
        (b'{"leads": {"add": [{"id": 1}]}}', "no key"),
        (b"hello=world", "no key"),
        (b"leads[add][0=1", "no key"),
        (b"leads=1", "names none"),
        (b"leads[add]=1", "names none"),
        (b"leads[add][0][id]=\xff", "UTF-8"),
        (b"leads[add][0][name]=%FF", "UTF-8"),
        (b"leads" + b"[a]" * 40 + b"=1", "deep"),
        (b"a&" * 100_000, "form fields"),
        (b"&".join(b"leads[add][%d][id]=1" % n for n in range(ENTITIES_MAX + 1)), "entities"),
    ],
)
def test_a_body_that_is_no_kommo_form_is_unreadable(body, reason):
    with pytest.raises(Unreadable, match=reason):
        parse_kommo(body)


def test_the_largest_body_that_is_allowed_is_read():
    body = b"&".join(b"leads[add][%d][id]=%d" % (n, n + 1) for n in range(ENTITIES_MAX))
    assert accepted(parse_kommo(body)) == ENTITIES_MAX


@pytest.mark.parametrize(
    "unit",
    [
        b"leads[",
        b"[",
        b"leads[add][0][" + b"a][" * 9 + b"a]=1&",
        b"leads[][][][][]=&",
        b"leads[add][0][]=&",
        b"%5B",
        b"leads[][]=&",
    ],
)
def test_a_hostile_megabyte_takes_bounded_time(unit):
    body = (unit * (2**20 // len(unit)))[: 2**20]
    began = time.monotonic()
    with contextlib.suppress(Unreadable):
        parse_kommo(body)
    assert time.monotonic() - began < 5


def test_nul_characters_do_not_reach_the_database():
    [event] = parse_kommo(b"leads[add][0][id]=5&leads[add][0][name]=a%00b")
    assert event.payload is not None
    assert event.payload["name"] == "a\ufffdb"


heads = st.sampled_from(["leads", "contacts", "account", "task", "x", ""])
names = st.sampled_from(
    ["", "0", "1", "add", "delete", "note", "id", "type", "element_id", "é", "+0"]
)
keys = st.builds(
    lambda head, path: head + "".join(f"[{name}]" for name in path),
    heads,
    st.lists(names, max_size=6),
)
values = st.one_of(st.sampled_from(["5", "company", "2"]), st.text(max_size=8))


@given(st.lists(st.tuples(keys, values), max_size=12))
def test_any_form_is_either_unreadable_or_gives_well_formed_events(pairs):
    body = urlencode(pairs, errors="replace").encode()
    try:
        events = parse_kommo(body, links=True)
    except Unreadable:
        return
    for event in events:
        assert (event.key == "") == (event.state == "quarantined")
        assert event.key == "" or int(event.key.partition(":")[2]) > 0
        assert len(event.kind) <= 32


@given(st.binary(max_size=200))
def test_any_bytes_are_either_unreadable_or_events(body):
    try:
        parse_kommo(body)
    except Unreadable:
        return


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "update", "status", "delete", "restore", "responsible"]),
            st.integers(1, 2**63 - 1),
            st.integers(1, 2**31),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda row: row[:2],
    )
)
def test_every_lead_that_is_named_is_found_once_per_action(rows):
    body = form(
        *(
            entity(f"leads[{action}][{index}]", id=str(lead_id), updated_at=str(stamp))
            for index, (action, lead_id, stamp) in enumerate(rows)
        )
    )
    found = {(e.kind, e.key, e.occurred_at) for e in parse_kommo(body)}
    assert found == {(action, f"lead:{lead_id}", utc(stamp)) for action, lead_id, stamp in rows}
