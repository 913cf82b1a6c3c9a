"""What the two stand-ins saw: latency from their clocks, agreement from their contents.

Nothing here asks the product itself; it is judged from outside.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from kommo_airtable_sync.core.stats import nearest_rank

Json = Any
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class StandIns:
    """Addresses of both stand-ins, e.g. ``http://127.0.0.1:8010``."""

    kommo: str
    airtable: str

    def control(self, side: str, method: str, path: str, body: Json = None) -> Json:
        """Use the control surface of ``kommo`` or ``airtable``."""
        base = self.kommo if side == "kommo" else self.airtable
        answer = requests.request(
            method, f"{base}/_control/{path}", json=body, timeout=TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        return answer.json()


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Latency in seconds; None where nothing was measured."""

    p50: float | None
    p95: float | None
    max: float | None
    count: int


def quantiles(seconds: Iterable[float]) -> Quantiles:
    """Nearest-rank quantiles."""
    ordered = sorted(seconds)
    if not ordered:
        return Quantiles(None, None, None, 0)
    return Quantiles(
        nearest_rank(ordered, 0.5), nearest_rank(ordered, 0.95), ordered[-1], len(ordered)
    )


def latencies(changes: Sequence[Json], writes: Sequence[Json]) -> list[float]:
    """From each change of a lead in Kommo to the first write of its record that follows.

    Args:
        changes: Kommo's change log, items with ``lead_id`` and ``changed_at``.
        writes: Airtable's write log, items with ``key`` and ``applied_at``.

    A change that nothing followed is left out: ``unanswered`` counts those.
    """
    applied = _applied_by_key(writes)
    found: list[float] = []
    for change in changes:
        times = applied.get(change["lead_id"], [])
        at = bisect_left(times, change["changed_at"])
        if at < len(times):
            found.append(times[at] - change["changed_at"])
    return found


def unanswered(changes: Sequence[Json], writes: Sequence[Json]) -> int:
    """Leads whose last change was followed by no write."""
    applied = _applied_by_key(writes)
    last: dict[int, float] = {}
    for change in changes:
        last[change["lead_id"]] = change["changed_at"]
    return sum(1 for lead, at in last.items() if not applied.get(lead) or applied[lead][-1] < at)


def _applied_by_key(writes: Sequence[Json]) -> dict[int, list[float]]:
    applied: dict[int, list[float]] = defaultdict(list)
    for write in writes:
        if write.get("key") is not None and write.get("source") == "publicApi":
            applied[int(write["key"])].append(write["applied_at"])
    return {key: sorted(times) for key, times in applied.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far both sides agree.

    Args:
        leads: leads that ought to have a record.
        duplicates: records beyond the first of a key.
        differences: one line for each disagreement.
    """

    leads: int
    duplicates: int
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """Texts behind ids: (pipeline, status) -> stage, user id -> name."""

    stages: Mapping[tuple[int, int], str]
    users: Mapping[int, str]


def compare(
    leads: Sequence[Json], names: Names, records: Sequence[Mapping[str, Json]]
) -> Comparison:
    """Compare Kommo's leads with Airtable's records, field by field.

    Args:
        leads: as API v4 gives them.
        names: of stages and users.
        records: cells by field name.
    """
    by_key: dict[int, Mapping[str, Json]] = {}
    keys = Counter(record.get("Kommo Deal ID") for record in records)
    for record in records:
        if record.get("Kommo Deal ID") is not None:
            by_key[int(record["Kommo Deal ID"])] = record
    differences: list[str] = []
    wanted = [lead for lead in leads if not _internal(lead)]
    for lead in wanted:
        record = by_key.pop(lead["id"], None)
        if record is None:
            differences.append(f"lead {lead['id']} has no record")
            continue
        differences += [
            f"lead {lead['id']}: {field} is {record.get(field)!r}, in Kommo {value!r}"
            for field, value in _expected(lead, names).items()
            if (record.get(field) or None) != (value or None)
        ]
    differences += [f"record {key} has no lead that qualifies" for key in by_key]
    duplicates = sum(count - 1 for key, count in keys.items() if key is not None)
    return Comparison(len(wanted), duplicates, tuple(differences))


def _internal(lead: Json) -> bool:
    found: list[Json] = lead["_embedded"].get("tags") or []
    tags = {str(tag["name"]).strip().lower() for tag in found}
    return bool(tags & {"internal", "test"})


def _expected(lead: Json, names: Names) -> dict[str, Json]:
    return {
        "Deal Name": lead["name"],
        "Amount": lead["price"],
        "Stage": names.stages.get((lead["pipeline_id"], lead["status_id"])),
        "Manager": names.users.get(lead["responsible_user_id"]),
    }


def read_kommo(stand_ins: StandIns, token: str) -> tuple[list[Json], Names]:
    """All leads and the names behind their ids, by the stand-in's API, unlimited."""
    headers = {"Authorization": f"Bearer {token}"}
    before = stand_ins.control("kommo", "GET", "settings")
    unlimited = {"requests_per_second": 10_000, "latency_seconds": 0}
    stand_ins.control("kommo", "PATCH", "settings", unlimited)
    leads: list[Json] = []
    url: str | None = f"{stand_ins.kommo}/api/v4/leads?limit=250"
    while url:
        answer = requests.get(url, headers=headers, timeout=TIMEOUT_SECONDS)
        page: Json = answer.json() if answer.status_code == 200 else {}
        leads += page.get("_embedded", {}).get("leads", [])
        url = page.get("_links", {}).get("next", {}).get("href")
    stages: dict[tuple[int, int], str] = {}
    for pipeline in _listing(stand_ins, "leads/pipelines", headers)["pipelines"]:
        for status in pipeline["_embedded"]["statuses"]:
            stages[pipeline["id"], status["id"]] = status["name"]
    users = {user["id"]: user["name"] for user in _listing(stand_ins, "users", headers)["users"]}
    restored = {name: before[name] for name in unlimited}
    stand_ins.control("kommo", "PATCH", "settings", restored)
    return leads, Names(stages, users)


def _listing(stand_ins: StandIns, path: str, headers: Mapping[str, str]) -> Json:
    answer = requests.get(
        f"{stand_ins.kommo}/api/v4/{path}", headers=dict(headers), timeout=TIMEOUT_SECONDS
    )
    return answer.json()["_embedded"]


def read_records(stand_ins: StandIns, table: str = "Deals") -> list[Json]:
    """All records of a table, cells by field name."""
    found = stand_ins.control("airtable", "GET", f"records?table={table}")["records"]
    return [record["fields"] for record in found]
