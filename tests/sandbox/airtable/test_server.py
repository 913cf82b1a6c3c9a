"""The stand-in behind real sockets, with pyairtable's own client against it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyairtable
import pytest
import requests
from pyairtable import Api
from pyairtable.models import WebhookNotification

from kommo_airtable_sync.opening import SystemClock
from kommo_airtable_sync.sandbox.airtable.model import SANDBOX_TOKEN, AirtableModel
from kommo_airtable_sync.sandbox.airtable.seed import BASE_ID
from kommo_airtable_sync.sandbox.deliverer import WebhookDeliverer
from kommo_airtable_sync.sandbox.serving import create_server

HEADERS = {"Authorization": f"Bearer {SANDBOX_TOKEN}"}


class Served:
    def __init__(self, model: AirtableModel, url: str) -> None:
        self.model = model
        self.url = url
        self.deals = f"{url}/v0/{BASE_ID}/Deals"
        self.api = Api(SANDBOX_TOKEN, endpoint_url=url, timeout=(5, 10), retry_strategy=None)

    def table(self, name: str = "Deals") -> pyairtable.Table:
        return self.api.table(BASE_ID, name)


@pytest.fixture
def served() -> Iterator[Served]:
    model = AirtableModel(SystemClock())
    model.seed_base()
    model.settings.rate_limit = "off"
    server = create_server(model, 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    running = Served(model, f"http://127.0.0.1:{port}")
    yield running
    running.api.session.close()
    server.should_exit = True
    thread.join(20)


def test_pyairtable_creates_lists_and_deletes(served: Served) -> None:
    table = served.table()
    made = table.batch_create([{"Kommo Deal ID": n, "Deal Name": f"d{n}"} for n in range(105)])
    assert len(made) == 105
    assert [each["id"] for each in table.all()] == [each["id"] for each in made]
    found = table.all(formula="{Kommo Deal ID}=7", use_field_ids=True, fields=["Deal Name"])
    assert list(found[0]["fields"].values()) == ["d7"]
    assert table.get(made[3]["id"])["fields"]["Deal Name"] == "d3"
    assert all(each["deleted"] for each in table.batch_delete([each["id"] for each in made[:12]]))
    assert len(table.all(page_size=50)) == 93


def test_pyairtable_switches_to_post_for_a_long_formula(served: Served) -> None:
    served.table().create({"Deal Name": "x", "Seats": 1})
    formula = "OR(" + ",".join("{Deal Name}='%s'" % ("x" * n) for n in range(1, 400)) + ")"
    assert len(served.table().all(formula=formula)) == 1
    routes = served.model.requests.as_json()["by_route"]
    assert routes["POST /v0/{base}/{table}/listRecords"] == 1


def test_pyairtable_upserts_by_field_id(served: Served) -> None:
    table = served.table()
    key = table.schema().field("Kommo Deal ID").id
    rows = [{"fields": {key: n, "Stage": "Won"}} for n in range(12)]
    first = table.batch_upsert(rows, [key])
    assert (len(first["createdRecords"]), first["updatedRecords"]) == (12, [])
    again = table.batch_upsert(rows[::-1], [key], use_field_ids=True)
    assert again["updatedRecords"] == first["createdRecords"][::-1]
    assert again["records"][0]["fields"][key] == 11


def test_pyairtable_reads_and_extends_the_schema(served: Served) -> None:
    base = served.api.base(BASE_ID)
    assert [each.name for each in served.api.bases()] == ["Sandbox"]
    assert served.api.whoami()["email"] == "sync@example.com"
    schema = base.schema()
    assert schema.table("Deals").field("Stage").options.choices[0].name == "New"
    assert schema.table("Deals").field("Last Modified").type == "lastModifiedTime"
    clients = base.table("Clients")
    clients.create_field("Size", "number", options={"precision": 1})
    assert clients.schema().field("Size").options.precision == 1
    assert clients.create({"Size": 1.5})["fields"] == {"Size": 1.5}


def test_pyairtable_sees_errors_as_airtables(served: Served) -> None:
    with pytest.raises(requests.HTTPError) as caught:
        served.table().create({"Stage": "nonsense"})
    assert caught.value.response.status_code == 422
    assert "INVALID_MULTIPLE_CHOICE_OPTIONS" in str(caught.value.args[-1])


@pytest.mark.parametrize(("kind", "records"), [("drop_before", 0), ("drop_after", 1)])
def test_a_dropped_connection_is_a_connection_error(served: Served, kind, records) -> None:
    requests.post(f"{served.url}/_control/faults", json={"kind": kind, "times": 1}, timeout=5)
    with pytest.raises(requests.ConnectionError):
        requests.post(served.deals, json={"fields": {}}, headers=HEADERS, timeout=5)
    assert len(served.model.bases[BASE_ID].find_table("Deals").records) == records
    assert requests.get(served.deals, headers=HEADERS, timeout=5).status_code == 200


def test_control_needs_no_token_and_knows_no_latency(served: Served) -> None:
    served.model.settings.latency_seconds = 30.0
    body = {"fields": {"Deal Name": "by hand"}}
    url = f"{served.url}/_control"
    made = requests.post(f"{url}/records?table=deals", json=body, timeout=5).json()
    assert requests.get(f"{url}/records?table=Deals", timeout=5).json()["records"] == [made]
    assert requests.get(f"{url}/requests", timeout=5).json()["total"] == 0


def test_calls_wait_out_their_latency_side_by_side(served: Served) -> None:
    served.model.settings.latency_seconds = 0.4
    served.model.settings.serialised_upserts = False
    body = {
        "performUpsert": {"fieldsToMergeOn": ["Kommo Deal ID"]},
        "records": [{"fields": {"Kommo Deal ID": 1}}],
    }

    def upsert(_: int) -> float:
        started = time.perf_counter()
        answer = requests.patch(served.deals, json=body, headers=HEADERS, timeout=10)
        assert answer.status_code == 200
        return time.perf_counter() - started

    barrier_free = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        took = list(pool.map(upsert, range(8)))
    assert min(took) >= 0.4
    assert time.perf_counter() - barrier_free < 8 * 0.4
    assert len(served.model.bases[BASE_ID].find_table("Deals").records) > 1


def test_a_table_name_and_a_query_arrive_as_they_were_sent(served: Served) -> None:
    served.model.bases[BASE_ID].find_table("Deals").name = "📣 A/B?"
    table = served.table("📣 A/B?")
    table.create({"Deal Name": "a+b & c%20"})
    assert len(table.all(formula="{Deal Name}='a+b & c%20'")) == 1


class Listener(ThreadingHTTPServer):
    """Keeps what it is sent, and answers the next of ``answers``, else 204."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        super().__init__(("127.0.0.1", 0), _Listening)
        self.url = f"http://127.0.0.1:{self.server_port}/"


class _Listening(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers), body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def listener(served: Served) -> Iterator[Listener]:
    server = Listener()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with WebhookDeliverer(served.model):
        yield server
    server.shutdown()
    thread.join()
    server.server_close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_pyairtable_follows_a_webhook_from_its_ping_to_its_payloads(
    served: Served, listener: Listener
) -> None:
    base, spec = served.api.base(BASE_ID), {"options": {"filters": {"dataTypes": ["tableData"]}}}
    made = base.add_webhook(listener.url, spec)
    listener.answers = [500]
    served.model.settings.ping_retry_scale = 0.001
    record = served.table().create({"Stage": "Won"})["id"]
    until(lambda: len(listener.got) == 2)
    headers, body = listener.got[-1]
    code, secret = headers["X-Airtable-Content-MAC"], made.mac_secret_base64
    notification = WebhookNotification.from_request(body.decode(), code, secret)
    until(lambda: base.webhook(made.id).last_successful_notification_time)
    hook = base.webhook(notification.webhook.id)
    assert hook.last_notification_result.retry_number == 1
    (payload,) = hook.payloads()
    assert payload.action_metadata.source_metadata["user"]["email"] == "sync@example.com"
    (changed,) = payload.changed_tables_by_id.values()
    (value,) = changed.created_records_by_id[record].cell_values_by_field_id.values()
    assert value["name"] == "Won"
    served.table().batch_create([{} for _ in range(10)])
    assert [each.cursor for each in hook.payloads(payload.cursor + 1)] == [2]
    hook.extend_expiration()
    hook.disable_notifications()
    assert not base.webhook(hook.id).are_notifications_enabled
    hook.delete()
    assert base.webhooks() == []


def test_an_automation_posts_what_a_person_changes(served: Served, listener: Listener) -> None:
    url = f"{served.url}/_control"
    automation = {"url": listener.url, "secret": "a-secret-for-tests"}
    assert requests.post(f"{url}/automations", json=automation, timeout=5).ok
    body = {"fields": {"Kommo Deal ID": 7}}
    made = requests.post(f"{url}/records?table=Deals", json=body, timeout=5).json()
    until(lambda: listener.got)
    ((headers, body),) = listener.got
    assert headers["Authorization"] == "Bearer a-secret-for-tests"
    assert json.loads(body)["recordId"] == made["id"]
    assert json.loads(body)["kommoDealId"] == 7
