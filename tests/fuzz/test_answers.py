"""APIs that answer as they never should: only our own errors come out of the clients."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from kommo_airtable_sync.core.errors import SyncError
from kommo_airtable_sync.kommo.client import KommoClient
from tests.conftest import HandClock
from tests.fuzz.answering import Answering, Free

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([10**400, "1", -1, 0])
)  # fmt: skip
names = st.sampled_from(["_embedded", "leads", "_links", "next", "href", "id", "updated_at",
                         "created_at", "users", "webhooks", "records", "fields", "offset"])  # fmt: skip
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
items = st.dictionaries(names, leaves, max_size=4) | leaves
lists = st.builds(
    lambda found, rest: {
        "_embedded": {n: found for n in ("leads", "users", "webhooks", "pipelines")}, **rest
    },
    st.lists(items, max_size=3),
    st.dictionaries(names, trees, max_size=2),
)  # fmt: skip
bodies = (trees | lists).map(lambda tree: json.dumps(tree).encode()) | st.binary(max_size=60)
statuses = st.sampled_from([200, 200, 200, 200, 204, 302, 400, 401, 403, 404, 429, 500])
READS: dict[str, Callable[[KommoClient], object]] = {
    "leads": lambda kommo: kommo.leads_by_id([1, 2]),
    "pages": lambda kommo: list(kommo.lead_pages()),
    "account": lambda kommo: kommo.account(),
    "pipelines": lambda kommo: kommo.pipelines(),
    "users": lambda kommo: kommo.users(),
    "webhooks": lambda kommo: kommo.webhooks(),
    "update": lambda kommo: kommo.update_leads([{"id": 1}]),
}


@pytest.mark.parametrize("name", READS)
@given(statuses, bodies)
def test_any_answer_of_kommo(name: str, status: int, body: bytes) -> None:
    with requests.Session() as session:
        session.mount("https://", Answering(status, body))
        kommo = KommoClient(
            "https://k.test", lambda: "token", Free(), clock=HandClock(), session=session
        )
        try:
            READS[name](kommo)
        except SyncError:
            return
