"""The Airtable webhooks that are ours."""

from __future__ import annotations

from kommo_airtable_sync.core.registration import DOCUMENT_PREFIX, AirtableWebhook
from kommo_airtable_sync.store.documents import Documents


def registered(documents: Documents) -> list[AirtableWebhook]:
    """The Airtable webhooks that we have registered."""
    return [AirtableWebhook.from_json(body) for body in documents.named(DOCUMENT_PREFIX).values()]
