"""Both schemas and the mapping resolved against them, kept warm.

A schema comes from memory, else from the store (another process read it), else from the API. It
is read again when it is older than its time to live, or when a lead names something unknown.
"""

from __future__ import annotations

import json
from collections.abc import Callable

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
    ) -> None:
        self._config = config
        self._kommo = kommo
        self._airtable = airtable
        self._documents = documents
        self._mapping: Mapping | None = None
        self._kommo_url = kommo_url
        self._base_id = base_id
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

    def lead_url(self, lead_id: int) -> str:
        """Where a person sees the lead in Kommo."""
        return f"{self._kommo_url}/leads/detail/{lead_id}"

    def record_url(self, record_id: str) -> str:
        """Where a person sees the record in Airtable."""
        return f"https://airtable.com/{self._base_id}/{self.mapping().table_id}/{record_id}"

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
        )

    def _stored(self, name: str, read: Callable[[], Json], fresh_seconds: float | None) -> Json:
        stored = self._documents.get(name, fresh_seconds)
        if stored is not None:
            return json.loads(stored)
        body = read()
        self._documents.put(name, json.dumps(body, ensure_ascii=False))
        return body

    def _read_kommo(self) -> Json:
        schema = KommoSchema.from_api(
            account=self._kommo.account(),
            pipelines=self._kommo.pipelines(),
            users=self._kommo.users() or [],
            custom_fields=self._kommo.custom_fields("leads"),
            contact_fields=self._fields_of("contact"),
            company_fields=self._fields_of("company"),
            loss_reasons=self._kommo.loss_reasons(),
        )
        return schema.to_json()

    def _fields_of(self, kind: LinkKind) -> list[Json]:
        """The custom fields of contacts or companies, if a link to them is mapped."""
        mapped = any(LINK_KINDS[link.kommo] == kind for link in self._config.links)
        return self._kommo.custom_fields(ENTITIES[kind]) if mapped else []

    def _read_airtable(self) -> Json:
        return AirtableSchema.from_api(self._airtable.tables()).to_json()
