"""What the two stand-ins saw: latency from their clocks, agreement from their contents.

Nothing here asks the product itself; it is judged from outside.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kommo_airtable_sync.core.stats import nearest_rank
from kommo_airtable_sync.sandbox.kommo.seed import ADMIN_ID
from kommo_airtable_sync.sandbox.stand_ins import StandIns

Json = Any
Stamp = tuple[int, float]
"""Something that happened to a lead or to its record: (lead id, epoch seconds)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What happened since some moment, by the stand-ins' own logs, oldest first.

    Args:
        edits: of people in Kommo.
        record_edits: of people in Airtable.
        posts: what Airtable's automations told the receiver, at the moment they did.
        created: records, by the sync.
        updated: records, by the sync.
        lead_updates: by the sync, in Kommo.
    """

    edits: list[Stamp]
    record_edits: list[Stamp]
    posts: list[Stamp]
    created: list[Stamp]
    updated: list[Stamp]
    lead_updates: list[Stamp]

    @property
    def written(self) -> list[Stamp]:
        """Records that the sync created or updated."""
        return sorted((*self.created, *self.updated), key=lambda stamp: stamp[1])

    def there(self) -> list[float]:
        """Seconds from each edit in Kommo to the record that shows it."""
        return latencies(self.edits, self.written)

    def back(self) -> list[float]:
        """Seconds from the moment at which Airtable told of each edit to the lead that shows it.

        0 for an edit that the sync had met, by another event, before it was told of it.
        """
        told = dict(following(self.record_edits, self.posts))
        shown = dict(following(self.record_edits, self.lead_updates))
        return [max(0.0, shown[edit][1] - told[edit][1]) for edit in told if edit in shown]


def see(stand_ins: StandIns, since: float = 0.0) -> Seen:
    """Read the stand-ins' logs.

    Args:
        stand_ins: which.
        since: epoch seconds.
    """
    changes: list[Json] = stand_ins.control("kommo", "GET", "changes")["changes"]
    writes: list[Json] = stand_ins.control("airtable", "GET", "writes?table=Deals")["writes"]
    sent: list[Json] = stand_ins.control("airtable", "GET", "deliveries")["deliveries"]
    leads = [each for each in changes if each["entity_type"] == "leads"]
    keyed = [each for each in writes if each["key"] is not None]

    def written(source: str, kind: str) -> list[Stamp]:
        return [
            (int(each["key"]), each["applied_at"])
            for each in keyed
            if (each["source"], each["kind"]) == (source, kind) and each["applied_at"] >= since
        ]

    def changed(*, by_sync: bool) -> list[Stamp]:
        return [
            (each["lead_id"], each["changed_at"])
            for each in leads
            if (each["by"] == ADMIN_ID) == by_sync and each["changed_at"] >= since
        ]

    posts = [
        (int(json.loads(each["body"]).get("kommoDealId", 0)), each["sent_at"])
        for each in sent
        if each["kind"] == "automation" and each["sent_at"] >= since
    ]
    return Seen(
        edits=changed(by_sync=False),
        record_edits=written("client", "update"),
        posts=posts,
        created=written("publicApi", "create"),
        updated=written("publicApi", "update"),
        lead_updates=changed(by_sync=True),
    )


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


def following(causes: Iterable[Stamp], effects: Iterable[Stamp]) -> list[tuple[Stamp, Stamp]]:
    """Each cause that an effect on the same lead follows, with the first of these."""
    times: dict[int, list[float]] = defaultdict(list)
    for lead, at in sorted(effects):
        times[lead].append(at)
    found: list[tuple[Stamp, Stamp]] = []
    for lead, at in causes:
        index = bisect_left(times[lead], at)
        if index < len(times[lead]):
            found.append(((lead, at), (lead, times[lead][index])))
    return found


def latencies(causes: Iterable[Stamp], effects: Iterable[Stamp]) -> list[float]:
    """Seconds from each cause to the effect that follows; what nothing followed is left out."""
    return [effect[1] - cause[1] for cause, effect in following(causes, effects)]


def unanswered(causes: Iterable[Stamp], effects: Iterable[Stamp]) -> int:
    """Leads whose last cause was followed by no effect."""
    last = dict(sorted(causes))
    return len(last) - len(following(last.items(), effects))


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


def agreement(stand_ins: StandIns) -> Comparison:
    """Compare what both stand-ins hold now."""
    leads, names = read_kommo(stand_ins)
    return compare(leads, names, [each["fields"] for each in stand_ins.records()])


def compare(
    leads: Sequence[Json], names: Names, records: Sequence[Mapping[str, Json]]
) -> Comparison:
    """Compare Kommo's leads with Airtable's records, whichever side owns a field.

    Args:
        leads: as API v4 gives them.
        names: of stages and users.
        records: cells by field name.
    """
    keys = Counter(record.get("Kommo Deal ID") for record in records)
    by_key = {int(key): each for each in records if (key := each.get("Kommo Deal ID")) is not None}
    differences: list[str] = []
    wanted = [lead for lead in leads if not _internal(lead)]
    for lead in wanted:
        record = by_key.pop(lead["id"], None)
        if record is None:
            differences.append(f"lead {lead['id']} has no record")
            continue
        shown = _shown(record)
        differences += [
            f"lead {lead['id']}: {field} is {shown[field]!r}, in Kommo {value!r}"
            for field, value in _in_kommo(lead, names).items()
            if shown[field] != value
        ]
    differences += [f"record {key} has no lead that qualifies" for key in by_key]
    duplicates = sum(count - 1 for key, count in keys.items() if key is not None)
    return Comparison(len(wanted), duplicates, tuple(differences))


def _internal(lead: Json) -> bool:
    tags = {name.strip().lower() for name in _tags(lead)}
    return bool(tags & {"internal", "test"})


def _tags(lead: Json) -> list[str]:
    return sorted(tag["name"] for tag in lead["_embedded"].get("tags") or ())


def _in_kommo(lead: Json, names: Names) -> dict[str, Json]:
    """A lead by the names of the fields that show it; empty is None."""
    custom: list[Json] = lead["custom_fields_values"] or []
    chosen = {each["field_name"]: each["values"][0]["value"] for each in custom}
    return {
        "Deal Name": lead["name"] or None,
        "Amount": lead["price"],
        "Stage": names.stages.get((lead["pipeline_id"], lead["status_id"])),
        "Manager": names.users.get(lead["responsible_user_id"]),
        "Tags": _tags(lead) or None,
        "Region": chosen.get("Region"),
        "Onboarding Status": chosen.get("Onboarding status"),
    }


def _shown(record: Mapping[str, Json]) -> dict[str, Json]:
    """A record by the same names; Kommo has no empty price."""
    cells = defaultdict[str, Json](lambda: None, record)
    return cells | {"Tags": sorted(cells["Tags"] or ()) or None, "Amount": cells["Amount"] or 0}


def read_kommo(stand_ins: StandIns) -> tuple[list[Json], Names]:
    """All leads and the names behind their ids; it counts against no limit."""
    account = stand_ins.control("kommo", "GET", "account")
    stages = {
        (pipeline["id"], status["id"]): status["name"]
        for pipeline in account["pipelines"]
        for status in pipeline["_embedded"]["statuses"]
    }
    return account["leads"], Names(stages, {user["id"]: user["name"] for user in account["users"]})
