"""From a path to what is meant: ids checked by shape, nothing looked up yet."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from kommo_airtable_sync.sandbox.airtable.schema import is_id


@dataclass(frozen=True, slots=True)
class Route:
    """A known path.

    Args:
        name: what to count by, ids replaced by words, e.g. ``/v0/{base}/{table}``.
        base: base id.
        table: table id or name, decoded.
        item: record or field id.
    """

    name: str
    base: str = ""
    table: str = ""
    item: str = ""

    @property
    def is_meta(self) -> bool:
        """A schema call; the monthly quota leaves those alone."""
        return self.name.startswith("/v0/meta/")


def route_of(path: str) -> Route | None:
    """The route of a raw (still percent-encoded) path; None if there is none or an id is bad."""
    parts = [unquote(each) for each in path.split("/")]
    match parts:
        case ["", "v0", "meta", "whoami" | "bases" as leaf]:
            return Route(f"/v0/meta/{leaf}")
        case ["", "v0", "meta", "bases", base, "tables", *rest] if is_id(base, "app"):
            return _meta(base, rest)
        case ["", "v0", base, table] if is_id(base, "app") and table:
            return Route("/v0/{base}/{table}", base, table)
        case ["", "v0", base, table, "listRecords"] if is_id(base, "app"):
            return Route("/v0/{base}/{table}/listRecords", base, table)
        case ["", "v0", base, table, record] if is_id(base, "app") and is_id(record, "rec"):
            return Route("/v0/{base}/{table}/{record}", base, table, record)
        case _:
            return None


def _meta(base: str, rest: list[str]) -> Route | None:
    start = "/v0/meta/bases/{base}/tables"
    match rest:
        case []:
            return Route(start, base)
        case [table]:
            return Route(start + "/{table}", base, table)
        case [table, "fields"]:
            return Route(start + "/{table}/fields", base, table)
        case [table, "fields", field]:
            return Route(start + "/{table}/fields/{field}", base, table, field)
        case _:
            return None
