"""Both schemas and the mapping resolved against them, kept warm.

A schema comes from memory, else from the store (another process read it), else from the API. It
is read again when it is older than its time to live, or when a lead names something unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

from kommo_airtable_sync.airtable.client import AirtableClient
from kommo_airtable_sync.core.config import SyncConfig
from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.core.mapping import Mapping, resolve
from kommo_airtable_sync.core.schemas import AirtableSchema, KommoSchema
from kommo_airtable_sync.core.types import ENTITIES, LINK_KINDS, Json, LinkKind
from kommo_airtable_sync.kommo.client import KommoClient
from kommo_airtable_sync.store.documents import Documents

SCHEMA_SECONDS_TO_LIVE = 600.0
# Schemas that sync.yaml does not fit are read again unless they are newer.
FIT_AGAIN_SECONDS = 2.0


class Directory:
    """Names, ids and types of both accounts."""

    def __init__(
        self,
        config: SyncConfig,
        kommo: KommoClient,
        airtable: AirtableClient,
        documents: Documents,
        *,
        kommo_url: str,
        base_id: str,
        source: str = "sync.yaml",
    ) -> None:
        self._config = config
        self._source = source
        self._kommo = kommo
        self._airtable = airtable
        self._documents = documents
        self._mapping: Mapping | None = None
        self._kommo_url = kommo_url
        self._base_id = base_id
        self.accounts = f"{kommo_url} {base_id}"
        self._kommo_name = f"kommo_schema {kommo_url}"
        self._airtable_name = f"airtable_schema {base_id}"

    def mapping(self) -> Mapping:
        """The mapping, resolved; reads schemas only if nobody has them.

        Raises:
            ConfigurationError: if sync.yaml does not fit the accounts.
            SideUnavailable: if a schema is needed and cannot be read.
        """
        if self._mapping is None:
            kommo = self._stored(self._kommo_name, self._read_kommo, fresh_seconds=None)
            airtable = self._stored(self._airtable_name, self._read_airtable, fresh_seconds=None)
            try:
                self._mapping = self._resolve(kommo, airtable)
            except ConfigurationError:
                # What sync.yaml names may have been added since somebody read the schemas.
                return self.refresh(FIT_AGAIN_SECONDS)
        return self._mapping

    def refresh(self, fresh_seconds: float = 0.0) -> Mapping:
        """Read again what is older than ``fresh_seconds``, and resolve anew."""
        kommo = self._stored(self._kommo_name, self._read_kommo, fresh_seconds)
        airtable = self._stored(self._airtable_name, self._read_airtable, fresh_seconds)
        self._mapping = self._resolve(kommo, airtable)
        return self._mapping

    def refresh_airtable(self) -> None:
        """Read Airtable's schema again, of which we know that it has changed."""
        airtable = self._stored(self._airtable_name, self._read_airtable, fresh_seconds=0.0)
        kommo = self._stored(self._kommo_name, self._read_kommo, fresh_seconds=None)
        self._mapping = self._resolve(kommo, airtable)

    @property
    def base_url(self) -> str:
        """Of the Kommo account."""
        return self._kommo_url

    def kommo_url(self, key: str) -> str:
        """Where a person sees a lead, contact or company in Kommo."""
        kind, _, number = key.partition(":")
        folder = {"lead": "leads", "contact": "contacts", "company": "companies"}[kind]
        return f"{self._kommo_url}/{folder}/detail/{number}"

    def record_url(self, key: str, record_id: str) -> str:
        """Where a person sees the record of a lead, contact or company in Airtable."""
        table = self.mapping().table_of(key)
        return f"https://airtable.com/{self._base_id}/{table.table_id}/{record_id}"

    def stale(self) -> bool:
        """Whether a schema has outlived its time; for idle moments."""
        ages = (
            self._documents.age_seconds(self._kommo_name),
            self._documents.age_seconds(self._airtable_name),
        )
        return any(age is None or age > SCHEMA_SECONDS_TO_LIVE for age in ages)

    def _resolve(self, kommo: Json, airtable: Json) -> Mapping:
        return resolve(
            self._config,
            KommoSchema.from_json(kommo),
            AirtableSchema.from_json(airtable),
            base_url=self._kommo_url,
            source=self._source,
        )

    def _stored(self, name: str, read: Callable[[], Json], fresh_seconds: float | None) -> Json:
        stored = self._documents.get(name, fresh_seconds)
        if stored is not None:
            return json.loads(stored)
        body = read()
        self._documents.put(name, json.dumps(body, ensure_ascii=False))
        return body

    def read_live(self) -> tuple[KommoSchema, AirtableSchema]:
        """Both accounts as they are this moment; nothing is kept of it."""
        return (
            KommoSchema.from_json(self._read_kommo()),
            AirtableSchema.from_json(self._read_airtable()),
        )

    def last_read(self) -> tuple[KommoSchema, AirtableSchema] | None:
        """Both accounts as somebody read them last, however long ago."""
        kommo = self._documents.get(self._kommo_name)
        airtable = self._documents.get(self._airtable_name)
        if kommo is None or airtable is None:
            return None
        return (
            KommoSchema.from_json(json.loads(kommo)),
            AirtableSchema.from_json(json.loads(airtable)),
        )

    def _read_kommo(self) -> Json:
        linked: list[LinkKind] = [LINK_KINDS[link.kommo] for link in self._config.links]
        return read_kommo(self._kommo, linked).to_json()

    def _read_airtable(self) -> Json:
        return AirtableSchema.from_api(self._airtable.tables()).to_json()


def read_kommo(client: KommoClient, linked: Collection[LinkKind]) -> KommoSchema:
    """The account, with the custom fields of those of contacts and companies that are linked."""

    def fields_of(kind: LinkKind) -> list[Json]:
        return client.custom_fields(ENTITIES[kind]) if kind in linked else []

    return KommoSchema.from_api(
        account=client.account(),
        pipelines=client.pipelines(),
        users=client.users() or [],
        custom_fields=client.custom_fields("leads"),
        contact_fields=fields_of("contact"),
        company_fields=fields_of("company"),
        loss_reasons=client.loss_reasons(),
    )
