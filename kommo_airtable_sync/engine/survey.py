"""Read both accounts side by side, page by page, into a survey, and into nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kommo_airtable_sync.airtable.errors import OffsetExpired
from kommo_airtable_sync.core.backoff import pause_seconds
from kommo_airtable_sync.core.errors import BatchRefused, Side, SideUnavailable
from kommo_airtable_sync.core.mapping import Mapping as TableMapping
from kommo_airtable_sync.core.mapping import wanted_embeds
from kommo_airtable_sync.core.types import ENTITIES, Json, LinkKind, key_id
from kommo_airtable_sync.engine.context import Engine
from kommo_airtable_sync.store.standing import synced_keys
from kommo_airtable_sync.store.survey import Survey

LEAD = "lead"
TRIES_MAX = 5
PATIENCE_SECONDS = 60.0
FINAL = frozenset({"unauthorized", "blocked", "quota"})
"""Nobody should sit and wait for these: a person must act."""
IDS_PER_READ = 250
Page = list[dict[str, Any]]
Progress = Callable[[str, int], None]
"""Told what is being read or compared, and how much of it is done."""
Look = Callable[[str, Sequence[int]], None]
"""Told of which entities of a kind something was just read, while the next page is under way."""


@dataclass
class _Listing:
    """Pages of one list, begun anew when the API loses its place."""

    side: Side
    kind: str
    name: str
    begin: Callable[[], Iterator[Page]]
    keep: Callable[[Page], list[int]]
    forget: Callable[[], None]
    simpler: Callable[[], Iterator[Page]] | None = None
    pages: Iterator[Page] = field(default_factory=lambda: iter(()))
    tries: int = 0
    count: int = 0

    def restart(self) -> None:
        self.forget()
        self.pages, self.count = self.begin(), 0
        self.tries += 1


def read_all(engine: Engine, survey: Survey, on_progress: Progress, look: Look) -> None:
    """Every lead and every record, and the contacts and companies that the ledger knows.

    Each side is read at the speed of its own limit; a side that fails is waited for and read from
    the start, some times over. Between the calls there is time to ``look`` at what was read.

    Raises:
        SideUnavailable, ConfigurationError: a side cannot be read. Nothing follows from a list
            that was not read to its end.
    """
    mapping = engine.directory.mapping()
    for kind in (LEAD, *(link.kind for link in mapping.links)):
        for keys in synced_keys(engine.database, kind):
            survey.want(kind, map(key_id, keys))
    kommo = [_leads(engine, survey, mapping, None)]
    kommo += [_contacts(engine, survey, link.kind) for link in mapping.links]
    airtable = [_records(engine, survey, LEAD, mapping)]
    airtable += [_records(engine, survey, link.kind, link.mapping) for link in mapping.links]
    _run(engine, [kommo, airtable], on_progress, look)


def read_changed(engine: Engine, survey: Survey, since: datetime, on_progress: Progress) -> None:
    """Leads and records that changed since then, each with its counterpart.

    Records are chosen by ``airtable.modified_field``; without it all of them are read.

    Raises:
        SideUnavailable, ConfigurationError: a side cannot be read.
    """
    mapping = engine.directory.mapping()
    table = mapping.table_id
    _run(
        engine,
        [
            [_leads(engine, survey, mapping, since)],
            [_records(engine, survey, LEAD, mapping, since)],
        ],
        on_progress,
        lambda _kind, _ids: None,
    )
    for ids in survey.portions(LEAD, 50):
        known = engine.journal.load([f"{LEAD}:{each}" for each in ids])
        record_ids = [k.entry.record_id for k in known.values() if k.entry.record_id]
        cells = [mapping.key_cell(each) for each in ids]
        found = engine.airtable.find_records(table, record_ids, mapping.key.id, cells)
        survey.add_records(LEAD, _numbered(found, mapping))
    for ids in survey.portions(LEAD, IDS_PER_READ):
        there = survey.entities_of(LEAD, ids)
        missing = [each for each in ids if each not in there]
        found = engine.kommo.leads_by_id(missing, with_=wanted_embeds(mapping))
        survey.add_entities(LEAD, found.values())


def _leads(
    engine: Engine, survey: Survey, mapping: TableMapping, since: datetime | None
) -> _Listing:
    def begin() -> Iterator[Page]:
        return engine.kommo.lead_pages(updated_from=since, with_=wanted_embeds(mapping))

    def keep(page: Page) -> list[int]:
        survey.add_entities(LEAD, page)
        return [int(each["id"]) for each in page]

    # What was read stays: a lead that comes again replaces itself.
    return _Listing("kommo", LEAD, "leads", begin, keep, _nothing)


def _contacts(engine: Engine, survey: Survey, kind: LinkKind) -> _Listing:
    read = engine.kommo.contacts_by_id if kind == "contact" else engine.kommo.companies_by_id

    def begin() -> Iterator[Page]:
        # All at once: the pages are asked for in another thread, which makes API calls only.
        ids = [key_id(key) for keys in synced_keys(engine.database, kind) for key in keys]
        parts = [ids[start : start + IDS_PER_READ] for start in range(0, len(ids), IDS_PER_READ)]
        return (list(read(some).values()) for some in parts)

    def keep(page: Page) -> list[int]:
        survey.add_entities(kind, page)
        return [int(each["id"]) for each in page]

    return _Listing("kommo", kind, ENTITIES[kind], begin, keep, _nothing)


def _records(
    engine: Engine,
    survey: Survey,
    kind: str,
    table: TableMapping,
    since: datetime | None = None,
) -> _Listing:
    special = (table.key.id, table.modified_field_id, table.status and table.status.id)
    fields = [each.id for each in table.fields] + [each for each in special if each]
    modified = table.modified_field_id

    def everything() -> Iterator[Page]:
        return engine.airtable.record_pages(table.table_id, fields)

    def begin() -> Iterator[Page]:
        if since is None or modified is None:
            return everything()
        return engine.airtable.changed_record_pages(table.table_id, fields, modified, since)

    def keep(page: Page) -> list[int]:
        numbered = _numbered(page, table)
        survey.add_records(kind, numbered)
        return [number for _, number in numbered if number is not None]

    def forget() -> None:
        survey.forget_records(kind)

    name = f"records of {table.table_name}"
    return _Listing("airtable", kind, name, begin, keep, forget, simpler=everything)


def _numbered(
    page: Iterable[Mapping[str, Json]], table: TableMapping
) -> list[tuple[Mapping[str, Json], int | None]]:
    return [(each, table.lead_id_of(each["fields"].get(table.key.id))) for each in page]


def _nothing() -> None:
    """Nothing has to be forgotten."""


def _run(engine: Engine, lists: list[list[_Listing]], on_progress: Progress, look: Look) -> None:
    """Each list of listings one after another, the lists side by side; SQL on this thread only."""
    waiting: dict[Future[Page | None], tuple[_Listing, list[_Listing]]] = {}

    def ask(listing: _Listing, rest: list[_Listing]) -> None:
        waiting[engine.executor.submit(next, listing.pages, None)] = (listing, rest)

    def begin(rest: list[_Listing]) -> None:
        if rest:
            rest[0].restart()
            ask(rest[0], rest[1:])

    for listings in lists:
        begin(listings)
    try:
        while waiting:
            done = wait(waiting, return_when=FIRST_COMPLETED).done
            # In the order in which they were asked for: a set has none that comes again.
            for future in [each for each in waiting if each in done]:
                listing, rest = waiting.pop(future)
                page = _page_of(engine, listing, future)
                if page is None:
                    begin(rest)
                    continue
                ask(listing, rest)
                ids = listing.keep(page)
                listing.count += len(page)
                on_progress(listing.name, listing.count)
                look(listing.kind, ids)
    finally:
        # A call left behind would outlive its survey.
        wait(waiting)


def _page_of(engine: Engine, listing: _Listing, future: Future[Page | None]) -> Page | None:
    """The page, an empty one if the listing begins anew, or None at its end."""
    try:
        return future.result()
    except OffsetExpired:
        if listing.tries >= TRIES_MAX:
            raise
    except BatchRefused:
        # The formula that chooses what has changed; whatever else it is, it comes again.
        if listing.simpler is None or listing.begin is listing.simpler:
            raise
        listing.begin = listing.simpler
    except SideUnavailable as outage:
        if listing.tries >= TRIES_MAX or outage.reason in FINAL:
            raise
        seconds = pause_seconds(outage.reason, listing.tries, outage.retry_after_seconds)
        if seconds > PATIENCE_SECONDS:
            raise
        engine.clock.sleep(seconds)
    listing.restart()
    return []
