"""Copies: further records with a key that one record has already; what would be lost with each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from kommo_airtable_sync.core.codecs import COMPUTED
from kommo_airtable_sync.core.mapping import Mapping as TableMapping
from kommo_airtable_sync.core.types import Json

Record = Mapping[str, Json]
Cells = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Copy:
    """A record beside the one that the sync keeps.

    Args:
        own: names of the fields in which it has a value that the kept record does not have.
        record_of: the other lead (or contact) whose record it is by the ledger: somebody changed
            its key; None: nobody's.
        seen: its cells as they were looked at (`fingerprint`).
    """

    record_id: str
    own: tuple[str, ...]
    record_of: str | None
    seen: str

    @property
    def is_removable(self) -> bool:
        """Whether nothing would be lost with it."""
        return not self.own and self.record_of is None


@dataclass(frozen=True, slots=True)
class Group:
    """The records with one key (``lead:5``, ``contact:7``): the one to keep, and the others."""

    key: str
    kept: str
    copies: tuple[Copy, ...]


def group_of(
    key: str, records: Sequence[Record], keepers: Mapping[str, str], table: TableMapping
) -> Group:
    """Choose the record to keep: the ledger's, else the one created first that is nobody's.

    Args:
        key: of all of them.
        records: two or more, whole, as the API lists them by field ids.
        keepers: record id -> the key whose record it is by the ledger.
        table: theirs.
    """

    def rank(record: Record) -> tuple[int, str, str]:
        keeper = keepers.get(record["id"])
        return (0 if keeper == key else 2 if keeper else 1, record["createdTime"], record["id"])

    kept, *copies = sorted(records, key=rank)
    return Group(
        key,
        kept["id"],
        tuple(
            Copy(
                each["id"],
                own_fields(kept["fields"], each["fields"], table),
                keepers.get(each["id"]),
                fingerprint(each["fields"], table),
            )
            for each in copies
        ),
    )


def own_fields(kept: Cells, copy: Cells, table: TableMapping) -> tuple[str, ...]:
    """Names of the fields, mapped or not, in which only the copy has what it has.

    The key is the same by definition, even where it is spelt another way.
    """
    there = _entered(kept, table)
    names = {field.id: field.name for field in table.table.fields}
    own = [id_ for id_, cell in _entered(copy, table).items() if there.get(id_) != cell]
    return tuple(sorted(names.get(id_, id_) for id_ in own if id_ != table.key.id))


def fingerprint(cells: Cells, table: TableMapping) -> str:
    """Changes whenever anybody changes a cell of the record."""
    return hashlib.sha256(_text(_entered(cells, table)).encode()).hexdigest()[:16]


def _entered(cells: Cells, table: TableMapping) -> dict[str, Json]:
    """The filled cells, without what Airtable computes and what we write to tell people."""
    told = {table.status.id} if table.status else set[str]()
    told |= {field.id for field in table.table.fields if field.type in COMPUTED}
    return {
        id_: _plain(cell)
        for id_, cell in cells.items()
        # A cleared rich text reads as a line break (reference 3); 0 is a value.
        if id_ not in told and cell is not None and cell is not False
        if cell not in ("", "\n", [])
    }


def _plain(cell: Json) -> Json:
    """Files and people by their ids, since addresses expire; links and options in any order."""
    if isinstance(cell, dict):
        item = cast("dict[str, Json]", cell)
        return item.get("id", item)
    if isinstance(cell, list):
        return sorted((_plain(each) for each in cast("list[Json]", cell)), key=_text)
    return cell


def _text(cell: Json) -> str:
    return json.dumps(cell, sort_keys=True)
