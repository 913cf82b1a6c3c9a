"""Two accounts that agree, of any size, within seconds: both stand-ins and the ledger are filled.

The cells and what the ledger agrees on come from the product's own planning; only the sending and
the journal are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from kommo_airtable_sync.assembly import build_engine
from kommo_airtable_sync.core.links import LINKED, company_id, main_contact_id
from kommo_airtable_sync.core.mapping import wanted_embeds
from kommo_airtable_sync.core.types import BULK, LinkKind, key_id
from kommo_airtable_sync.engine.agreeing import agreed_after_airtable
from kommo_airtable_sync.engine.batch import Batch
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.engine.links import plan_linked
from kommo_airtable_sync.engine.merge import merge_one
from kommo_airtable_sync.settings import Settings
from kommo_airtable_sync.store.claiming import Claim
from kommo_airtable_sync.store.entries import LedgerEntry, entry_row
from kommo_airtable_sync.store.schema import ledger
from tests.stack import Stack

SEEDED_AT_ONCE = 10_000
REAL = {
    "kommo": {"requests_per_second": 7, "latency_seconds": 0.12},
    "airtable": {"rate_limit": "strict", "latency_seconds": 0.12},
}
UNLIMITED = {
    "kommo": {"requests_per_second": 1_000, "latency_seconds": 0},
    "airtable": {"rate_limit": "off", "latency_seconds": 0},
}
FAST = 200
"""Calls a second, of either side, where the CPU is to be the bottleneck."""


def limits(stack: Stack, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Set both stand-ins' limits: `REAL` or `UNLIMITED`."""
    for side, settings in wanted.items():
        stack.control(side, "PATCH", "settings", dict(settings))


def fill(stack: Stack, leads: int) -> None:
    """So many deals in Kommo, their records in Airtable, and a ledger that knows both."""
    limits(stack, UNLIMITED)
    for start in range(0, leads, SEEDED_AT_ONCE):
        stack.control("kommo", "POST", "seed", {"count": min(SEEDED_AT_ONCE, leads - start)})
    named = {name.lower(): value for name, value in stack.environment.items()}
    given = {name: value for name, value in named.items() if name in Settings.model_fields}
    given |= {"kommo_requests_per_second": FAST, "airtable_requests_per_second": FAST}
    settings = Settings(_env_file=None, **given)
    settings.home.mkdir(parents=True, exist_ok=True)
    engine = build_engine(settings, BULK)
    records: dict[str, str] = {}
    mapping = engine.directory.mapping()
    for page in engine.kommo.lead_pages(with_=wanted_embeds(mapping)):
        _add_page(stack, engine, [lead for lead in page if _key(lead) not in records], records)
    engine.executor.shutdown()
    engine.database.close()
    engine.limiter.close()
    for side, log in (("kommo", "requests"), ("airtable", "requests"), ("airtable", "writes")):
        stack.control(side, "DELETE", log)


def _add_page(
    stack: Stack, engine: Engine, leads: Sequence[Mapping[str, Any]], records: dict[str, str]
) -> None:
    batch = Batch(Claim(0, BULK, {}), run_id="")
    linked: dict[str, dict[str, str]] = {_key(lead): {} for lead in leads}
    for link in engine.directory.mapping().links:
        others = {_key(lead): _behind(link.kind, lead) for lead in leads}
        new = {other for other in others.values() if other and other not in records}
        read = (
            engine.kommo.contacts_by_id if link.kind == "contact" else engine.kommo.companies_by_id
        )
        found = read([key_id(key) for key in sorted(new)])
        batch.known.update(engine.journal.load(sorted(new)))
        for number, entity in found.items():
            plan_linked(engine, batch, link, f"{link.kind}:{number}", entity)
        _write(stack, engine, batch, records)
        for key, other in others.items():
            if other in records:
                linked[key][link.kommo] = records[other]
    keys = [_key(lead) for lead in leads]
    batch.known.update(engine.journal.load(keys))
    batch.leads = {_key(lead): {**lead, LINKED: linked[_key(lead)]} for lead in leads}
    batch.records_read.update(keys)
    for key in keys:
        merge_one(engine, batch, key)
    _write(stack, engine, batch, records)


def _write(stack: Stack, engine: Engine, batch: Batch, records: dict[str, str]) -> None:
    """Put the planned records and what is agreed of them in place."""
    plans, batch.plans = batch.plans, []
    assert not batch.outcomes, next(iter(batch.outcomes.values()))
    if not plans:
        return
    body = {
        "records": [{"fields": plan.cells} for plan in plans],
        "typecast": True,
        "returnFieldsByFieldId": True,
    }
    path = f"records?table={plans[0].table.table_id}&source=publicApi"
    shown = stack.control("airtable", "POST", path, body)["records"]
    entries: list[LedgerEntry] = []
    for plan, record in zip(plans, shown, strict=True):
        records[plan.key] = record["id"]
        fields = agreed_after_airtable(plan, record)
        entries.append(replace(plan.entry, record_id=record["id"], fields=fields))
    with engine.database.write() as connection:
        rows = [entry_row(entry, now=1.0) for entry in entries]
        connection.execute(sa.insert(ledger), rows)


def _behind(kind: LinkKind, lead: Mapping[str, Any]) -> str | None:
    number = main_contact_id(lead) if kind == "contact" else company_id(lead)
    return f"{kind}:{number}" if number is not None else None


def _key(lead: Mapping[str, Any]) -> str:
    return f"lead:{lead['id']}"
