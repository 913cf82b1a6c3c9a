"""Whether both accounts still are as sync.yaml and the last look knew them."""

from __future__ import annotations

import hashlib
import json

from kommo_airtable_sync.core.drift import Accounts, compare, misfits
from kommo_airtable_sync.core.findings import Finding
from kommo_airtable_sync.core.schemas import AirtableSchema, KommoSchema
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.store.documents import Documents

SEEN = "schema_seen "
"""The accounts as they were when sync.yaml last changed or a person accepted them."""


def look(engine: Engine, *, accept: bool = False) -> list[Finding]:
    """Read both schemas and say what has changed; nothing is written to either account.

    What is told is told again until sync.yaml changes or a person accepts it. Accounts that
    sync.yaml does not fit are never taken for known.

    Args:
        engine: any lane's.
        accept: take the accounts as they are for known from now on.

    Raises:
        ConfigurationError, SideUnavailable: if a schema cannot be read.
    """
    documents, directory = Documents(engine.database), engine.directory
    name = SEEN + directory.accounts
    text = documents.get(name)
    stored = json.loads(text) if text else None
    stamp = hashlib.sha256(engine.config.model_dump_json().encode()).hexdigest()
    now = Accounts(*directory.read_live())
    base_url = directory.base_url
    if stored is not None:
        seen = Accounts(
            KommoSchema.from_json(stored["kommo"]), AirtableSchema.from_json(stored["airtable"])
        )
    else:
        # Before the first look: as the engine read them when it began.
        last = directory.last_read()
        seen = Accounts(*last) if last else now
    found = compare(engine.config, seen, now, base_url=base_url)
    renewed = accept or (stored is not None and stored["config"] != stamp)
    keep = now if renewed and not misfits(engine.config, now, base_url=base_url) else seen
    if stored is None or keep is not seen:
        body = {
            "config": stamp,
            "kommo": keep.kommo.to_json(),
            "airtable": keep.airtable.to_json(),
        }
        documents.put(name, json.dumps(body, ensure_ascii=False))
    return found
