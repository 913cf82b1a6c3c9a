from __future__ import annotations

import traceback
from datetime import datetime, timedelta, timezone

import pytest

from kommo_airtable_sync.core.errors import BatchRefused, ConfigurationError, SideUnavailable
from kommo_airtable_sync.kommo.client import KommoClient
from kommo_airtable_sync.kommo.errors import NotGranted
from tests.kommo.loopback import CountingBudget, Loopback, Reply, Seen, refused_url, silent_url

TOKEN = "eyJ0-secret-token"
PROBLEM = {"Content-Type": "application/problem+json"}
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=timezone.utc)
NOTHING = Reply(204)


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def sleep(self, seconds: float) -> None:
        raise AssertionError("the client never pauses")


@pytest.fixture
def kommo():
    server = Loopback()
    yield server
    server.close()


@pytest.fixture
def budget():
    return CountingBudget()


def client_for(url: str, budget: CountingBudget, **options) -> KommoClient:
    return KommoClient(url, lambda: TOKEN, budget, clock=FixedClock(), **options)


@pytest.fixture
def client(kommo, budget):
    return client_for(kommo.url, budget)


def listing(name: str, *items: dict, following: str = "") -> Reply:
    links = {"next": {"href": following}} if following else {}
    return Reply(200, {"_page": 1, "_links": links, "_embedded": {name: list(items)}})


def denied(status: int) -> Reply:
    return Reply(status, {"title": "No", "status": status, "detail": "Not for you"}, PROBLEM)


def test_leads_are_read_by_id_with_encoded_brackets_and_each_id_once(kommo, client):
    kommo.script.append(listing("leads", {"id": 5, "name": "five"}))

    assert client.leads_by_id([5, 6, 5], with_=["contacts", "loss_reason"]) == {
        5: {"id": 5, "name": "five"}
    }
    [seen] = kommo.seen
    assert (seen.method, seen.path) == ("GET", "/api/v4/leads")
    assert seen.query == [
        ("limit", "250"),
        ("with", "contacts,loss_reason"),
        ("filter[id][]", "5"),
        ("filter[id][]", "6"),
    ]
    assert "[" not in seen.raw_query
    assert seen.headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("name", ["contacts", "companies"])
def test_contacts_and_companies_are_read_by_id_like_leads(kommo, client, name):
    read = client.contacts_by_id if name == "contacts" else client.companies_by_id
    kommo.script.append(listing(name, {"id": 7, "name": "seven"}))
    kommo.script.append(NOTHING)
    assert read([7, 8, 7]) == {7: {"id": 7, "name": "seven"}}
    assert read([9]) == {}
    assert kommo.seen[0].path == f"/api/v4/{name}"
    assert kommo.seen[0].query == [("limit", "250"), ("filter[id][]", "7"), ("filter[id][]", "8")]


def test_a_contact_is_read_with_what_is_asked_for(kommo, client):
    kommo.script.append(NOTHING)
    client.contacts_by_id([7], with_=["leads"])
    assert ("with", "leads") in kommo.seen[0].query


def test_custom_fields_are_those_of_the_entity(kommo, client):
    kommo.script.append(listing("custom_fields", {"id": 41}))
    assert client.custom_fields("contacts") == [{"id": 41}]
    assert kommo.seen[0].path == "/api/v4/contacts/custom_fields"


def test_nothing_is_embedded_unless_asked_for(kommo, client):
    kommo.script.append(NOTHING)
    client.leads_by_id([5])
    assert "with" not in dict(kommo.seen[0].query)


def test_leads_that_do_not_exist_are_204_and_give_nothing(kommo, client):
    kommo.script.append(NOTHING)
    assert client.leads_by_id([5]) == {}


def test_no_ids_make_no_call(kommo, client):
    assert client.leads_by_id([]) == {}
    assert kommo.seen == []


def test_ids_go_250_a_call_and_every_call_has_its_slot(kommo, client, budget):
    def echo(seen: Seen) -> Reply:
        assert budget.open == 1
        ids = [int(value) for name, value in seen.query if name == "filter[id][]"]
        assert len(ids) <= 250
        return listing("leads", *({"id": lead_id} for lead_id in ids))

    kommo.script.extend([echo] * 3)
    assert list(client.leads_by_id(range(1, 502))) == list(range(1, 502))
    assert len(kommo.seen) == budget.slots == 3
    assert budget.open == 0


def test_a_server_that_ignores_the_filter_is_found_out(kommo, client):
    kommo.script.append(listing("leads", {"id": 5}, {"id": 99}))
    with pytest.raises(ConfigurationError, match="not asked for"):
        client.leads_by_id([5])


def test_pages_follow_next_until_204_and_stay_with_our_host(kommo, client):
    kommo.script.append(
        listing("leads", {"id": 1}, following="https://elsewhere.example/api/v4/leads?page=2&x=%5B")
    )
    kommo.script.append(listing("leads", {"id": 2}, following="?page=3"))
    kommo.script.append(NOTHING)
    since = datetime(2026, 1, 1, tzinfo=timezone.utc)

    pages = list(client.lead_pages(updated_from=since, with_=["contacts"]))

    assert pages == [[{"id": 1}], [{"id": 2}]]
    assert kommo.seen[0].query == [
        ("limit", "250"),
        ("order[updated_at]", "asc"),
        ("with", "contacts"),
        ("filter[updated_at][from]", str(int(since.timestamp()))),
    ]
    assert [seen.raw_query for seen in kommo.seen[1:]] == ["page=2&x=%5B", "page=3"]


def test_leads_are_asked_for_by_when_they_were_created(kommo, client):
    day = datetime(2024, 5, 2, tzinfo=timezone.utc)
    first, last = 1714608000, 1714694400
    for created in (first, last, last + 1):
        kommo.script.append(listing("leads", {"id": 1, "created_at": created}))

    def ids() -> list[int]:
        pages = client.lead_pages(created=(day, day + timedelta(days=1)))
        return [lead["id"] for page in pages for lead in page]

    assert ids() == ids() == [1]
    assert kommo.seen[0].query[2:] == [
        ("filter[created_at][from]", str(first)),
        ("filter[created_at][to]", str(last)),
    ]
    with pytest.raises(ConfigurationError, match=r"ignores filter\[created_at\]"):
        ids()


def test_a_page_whose_next_is_itself_does_not_go_on_for_ever(kommo, client):
    kommo.script.extend([listing("leads", {"id": 1}, following="?page=2")] * 2)
    with pytest.raises(SideUnavailable, match="given already"):
        list(client.lead_pages())


def test_an_answer_without_its_list_is_not_an_empty_list(kommo, client):
    kommo.script.append(Reply(200, {"_embedded": {}}))
    with pytest.raises(SideUnavailable, match="no list of leads"):
        client.leads_by_id([5])


@pytest.mark.parametrize("rest", [{}, {"_embedded": []}, {"_embedded": {"webhooks": None}}])
def test_a_list_that_counts_none_is_empty(kommo, client, rest):
    kommo.script.append(Reply(200, {"_total_items": 0, **rest}))
    assert client.webhooks() == []


@pytest.mark.parametrize("links", [[], None, {"next": None}, {"next": {"href": None}}])
def test_a_page_that_names_no_next_is_the_last(kommo, client, links):
    kommo.script.append(Reply(200, {"_links": links, "_embedded": {"users": [{"id": 1}]}}))
    assert client.users() == [{"id": 1}]


def test_users_are_none_to_a_token_without_the_right(kommo, client):
    kommo.script.append(denied(403))
    assert client.users() is None


def test_a_blocked_address_is_not_a_missing_right(kommo, client):
    page = Reply(403, b"<html>403 Forbidden</html>", {"Content-Type": "text/html"})
    kommo.script.extend([page, page])
    with pytest.raises(SideUnavailable, match="blocked"):
        client.users()
    with pytest.raises(SideUnavailable, match="blocked"):
        client.loss_reasons()


@pytest.mark.parametrize("status", [403, 404])
def test_loss_reasons_may_not_be_offered(kommo, client, status):
    kommo.script.append(denied(status))
    assert client.loss_reasons() == []


def test_the_lists_come_from_their_addresses(kommo, client):
    kommo.script.append(Reply(200, {"id": 1, "_embedded": {"datetime_settings": {}}}))
    kommo.script.append(listing("pipelines", {"id": 2}))
    kommo.script.append(listing("users", {"id": 3}))
    kommo.script.append(listing("custom_fields", {"id": 4}, following="?page=2"))
    kommo.script.append(listing("custom_fields", {"id": 5}))
    kommo.script.append(listing("loss_reasons", {"id": 6}))
    kommo.script.append(NOTHING)

    assert client.account()["id"] == 1
    assert client.pipelines() == [{"id": 2}]
    assert client.users() == [{"id": 3}]
    assert client.custom_fields("leads") == [{"id": 4}, {"id": 5}]
    assert client.loss_reasons() == [{"id": 6}]
    assert client.webhooks() == []
    assert [seen.path.removeprefix("/api/v4/") for seen in kommo.seen] == [
        "account",
        "leads/pipelines",
        "users",
        "leads/custom_fields",
        "leads/custom_fields",
        "leads/loss_reasons",
        "webhooks",
    ]
    assert dict(kommo.seen[0].query) == {"with": "datetime_settings"}


def test_leads_are_changed_by_one_patch_of_an_array(kommo, client):
    kommo.script.append(listing("leads", {"id": 5, "updated_at": 1}))
    assert client.update_leads([{"id": 5, "price": 10}]) == [{"id": 5, "updated_at": 1}]
    [seen] = kommo.seen
    assert (seen.method, seen.path, seen.body) == (
        "PATCH",
        "/api/v4/leads",
        [{"id": 5, "price": 10}],
    )
    assert seen.headers["content-type"] == "application/json"


@pytest.mark.parametrize("items", [[{"id": 1}] * 251, [{"id": 1, "price": float("nan")}]])
def test_what_kommo_would_refuse_for_certain_is_not_sent(kommo, client, items):
    with pytest.raises(ValueError, match=r"takes 250|not JSON compliant"):
        client.update_leads(items)
    assert kommo.seen == []


def test_a_refused_patch_names_the_culprit(kommo, client):
    errors = [{"code": "InvalidType", "path": "price", "detail": "No number."}]
    body = {"title": "Bad Request", "validation-errors": [{"request_id": "1", "errors": errors}]}
    kommo.script.append(Reply(400, body, PROBLEM))
    with pytest.raises(BatchRefused) as caught:
        client.update_leads([{"id": 1}, {"id": 2}])
    assert list(caught.value.item_errors) == [1]


def test_a_webhook_is_subscribed_and_removed_by_its_destination(kommo, client):
    kommo.script.append(Reply(201, {"id": 1, "destination": "https://x/s"}))
    kommo.script.append(NOTHING)
    kommo.script.append(denied(404))

    assert client.subscribe("https://x/s", ["add_lead"])["id"] == 1
    client.unsubscribe("https://x/s")
    client.unsubscribe("https://x/s")

    assert [(seen.method, seen.body) for seen in kommo.seen[:2]] == [
        ("POST", {"destination": "https://x/s", "settings": ["add_lead"]}),
        ("DELETE", {"destination": "https://x/s"}),
    ]


def test_an_error_that_quotes_the_destination_or_the_token_is_cleaned(kommo, client):
    quoting = f"no https://x/hooks/kommo/s3cret or {TOKEN}"
    kommo.script.append(Reply(400, {"title": "Bad", "detail": quoting}, PROBLEM))
    with pytest.raises(BatchRefused) as caught:
        client.subscribe("https://x/hooks/kommo/s3cret", ["add_lead"])
    assert "s3cret" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert "[secret]" in str(caught.value)


@pytest.mark.parametrize(("body", "pause"), [({"retry_after": 300}, 300.0), ({}, 1.0)])
def test_a_429_pauses_the_shared_budget_and_is_not_retried(kommo, client, budget, body, pause):
    kommo.script.append(Reply(429, body, PROBLEM))
    with pytest.raises(SideUnavailable, match="rate_limited"):
        client.account()
    assert budget.throttles == [pause]
    assert len(kommo.seen) == 1


def test_only_a_429_throttles(kommo, client, budget):
    kommo.script.append(denied(500))
    with pytest.raises(SideUnavailable, match="server_error"):
        client.account()
    assert budget.throttles == []


@pytest.mark.parametrize("how", ["drop", "cut"])
def test_a_get_whose_connection_broke_off_is_tried_once_more(kommo, client, budget, how):
    kommo.script.append(Reply(200, {"id": 0}, how=how))
    kommo.script.append(Reply(200, {"id": 1}))
    assert client.account() == {"id": 1}
    assert budget.slots == len(kommo.seen) == 2


def test_a_get_is_not_tried_a_third_time(kommo, client):
    kommo.script.extend([Reply(how="drop")] * 3)
    with pytest.raises(SideUnavailable) as caught:
        client.account()
    assert (caught.value.reason, caught.value.sent) == ("unreachable", True)
    assert len(kommo.seen) == 2


def test_a_write_whose_connection_broke_off_is_never_repeated(kommo, client):
    kommo.script.append(Reply(how="drop"))
    with pytest.raises(SideUnavailable) as caught:
        client.update_leads([{"id": 1}])
    assert (caught.value.reason, caught.value.sent) == ("unreachable", True)
    assert len(kommo.seen) == 1


def test_a_server_that_hangs_is_a_timeout_and_may_have_got_it(kommo, budget):
    kommo.script.append(Reply(how="hang"))
    client = client_for(kommo.url, budget, timeout=(1.0, 0.2))
    with pytest.raises(SideUnavailable) as caught:
        client.account()
    assert (caught.value.reason, caught.value.sent) == ("timeout", True)
    assert len(kommo.seen) == 1


def test_a_refused_connection_proves_that_nothing_was_sent(budget):
    with pytest.raises(SideUnavailable) as caught:
        client_for(refused_url(), budget).update_leads([{"id": 1}])
    assert (caught.value.reason, caught.value.sent) == ("unreachable", False)
    assert budget.slots == 1


def test_a_connection_that_never_comes_about_proves_it_too(budget):
    with silent_url() as url, pytest.raises(SideUnavailable) as caught:
        client_for(url, budget, timeout=(0.2, 1.0)).update_leads([{"id": 1}])
    assert (caught.value.reason, caught.value.sent) == ("timeout", False)


@pytest.mark.parametrize("url", ["subdomain.kommo.com", "ftp://kommo.com", "http://"])
def test_an_address_that_is_none_is_a_matter_of_configuration(budget, url):
    with pytest.raises(ConfigurationError, match="KOMMO_BASE_URL"):
        client_for(url, budget).account()


def test_a_redirect_is_not_followed(kommo, client):
    kommo.script.append(Reply(302, None, {"Location": "https://elsewhere.example/"}))
    with pytest.raises(NotGranted, match="KOMMO_BASE_URL"):
        client.account()
    assert len(kommo.seen) == 1


def test_a_good_status_with_a_web_page_is_no_answer(kommo, client):
    kommo.script.append(Reply(200, b"<html>", {"Content-Type": "text/html"}))
    with pytest.raises(SideUnavailable, match="server_error"):
        client.account()


def test_the_token_is_asked_for_at_every_call_and_netrc_does_not_replace_it(
    kommo, budget, monkeypatch, tmp_path
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    tokens = iter(["first", "second"])
    client = KommoClient(kommo.url, lambda: next(tokens), budget, clock=FixedClock())
    kommo.script.extend([Reply(200, {}), Reply(200, {})])
    client.account()
    client.account()
    assert [seen.headers["authorization"] for seen in kommo.seen] == [
        "Bearer first",
        "Bearer second",
    ]


@pytest.mark.parametrize("token", ["", "line\nbreak", "two words", "tökén"])
def test_a_token_that_http_cannot_carry_is_named_but_not_shown(kommo, budget, token):
    client = KommoClient(kommo.url, lambda: token, budget, clock=FixedClock())
    with pytest.raises(ConfigurationError, match="KOMMO_TOKEN") as caught:
        client.account()
    assert not token or token not in str(caught.value)
    assert kommo.seen == []


@pytest.mark.parametrize("how", ["drop", "hang", "answer"])
def test_the_token_is_in_no_error_and_no_repr(kommo, budget, how):
    client = client_for(kommo.url, budget, timeout=(1.0, 0.2))
    kommo.script.extend([Reply(500, {"detail": "x"}, how=how)] * 2)
    with pytest.raises(SideUnavailable) as caught:
        client.account()
    error = caught.value
    assert error.__context__ is None  # requests' own error holds the request, and so the header
    assert TOKEN not in "".join(traceback.format_exception(error)) + repr(error) + repr(client)


def test_the_difference_of_the_clocks_is_known_after_an_answer(kommo, client):
    assert client.server_ahead_seconds is None
    ahead = (NOW + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    kommo.script.append(Reply(200, {}, {"Date": ahead}))
    kommo.script.append(Reply(200, {}, {"Date": "soon"}))

    client.account()
    assert client.server_ahead_seconds == 90
    client.account()
    assert client.server_ahead_seconds == 90


def test_a_lead_edited_while_pages_are_read_moves_and_nothing_is_left_out(kommo, client):
    def lead(number: int, at: int) -> dict[str, int]:
        return {"id": number, "updated_at": at}

    first = [lead(n, 1000 + n) for n in range(1, 251)]
    kommo.script.append(listing("leads", *first, following="?page=2"))
    # Lead 1 was edited: by number, page 2 would begin with lead 252.
    kommo.script.append(listing("leads", lead(250, 1250), lead(251, 1251), lead(1, 2000)))
    kommo.script.append(NOTHING)

    seen = [each["id"] for page in client.lead_pages() for each in page]

    assert sorted(set(seen)) == list(range(1, 252))
    assert ("filter[updated_at][from]", "1250") in kommo.seen[1].query
