"""A proposal as the text of ``sync.yaml``: by id, each line with what it is and how sure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kommo_airtable_sync.core.likeness import Match, goes_back
from kommo_airtable_sync.core.proposing import LinkProposal, Proposal, TableProposal
from kommo_airtable_sync.core.schemas import AirtableField, KommoSchema
from kommo_airtable_sync.core.vocabulary import SELECTS

# Where a deal stands and whose it is, is settled in Kommo, unless a person decides otherwise.
KOMMO_S_OWN = frozenset({"name", "stage", "responsible_user", "loss_reason"})
LINE_LENGTH = 100

_HEAD = """\
# Which Kommo leads are mirrored into which Airtable table, field by field. Proposed by
# `kommo-airtable-sync init` from both accounts; it can be used as it stands, and is yours to edit.
# Fields are named by id, so that a rename on either side changes nothing; the line above each says
# what it is called, and how sure the proposal is. Lines that begin with "# - {" are doubtful: take
# the # away if they are right. `kommo-airtable-sync plan` shows what a change here would do,
# `kommo-airtable-sync doctor` whether it fits the accounts.
version: 1
"""
_FIELDS = """\
# owner: the side that decides. kommo (if left out): what is edited in Airtable is taken back;
# airtable: the other way round; both: edits on either side go to the other one, and if both edited
# the same field, on_conflict says whose stands: kommo, airtable, newest, or hold for a person.
fields:
"""
_TAIL = """\
# Your own functions, "package.module:function": a third source for fields that nothing else fills.
enrich: []

# The brake: beyond this much change in an hour a person is asked first (`holds`).
safety: {max_share_changed: 0.3, max_records_changed: 500, max_deletes: 20}

# The nightly comparison of both sides.
"""


def render(proposal: Proposal, kommo: KommoSchema) -> str:
    """The text of ``sync.yaml``; it can be loaded if there is a key and at least one sure field."""
    deals = proposal.deals
    parts = [
        _HEAD,
        _kommo_part(kommo),
        _airtable_part(proposal),
        _FIELDS + "".join(f"{line}\n" for line in _entries(deals, "  ", with_owner=True)),
        _left_alone(proposal),
        _links_part(proposal.links),
        _TAIL + f'reconcile: {{cron: "0 3 * * *", timezone: {kommo.zone.key}, since: null}}\n',
        "realtime: {linger_seconds: 6, settle_seconds: 0, max_attempts: 8}\n",
    ]
    return "\n".join(part for part in parts if part)


def _kommo_part(kommo: KommoSchema) -> str:
    lines = ["kommo:", "  include:               # a lead is synced if it meets every list given"]
    lines += [
        "    pipelines: []        # none listed: all of",
        *(f"      #   {each.id}  {_plain(each.name)}" for each in kommo.pipelines),
        '    stages: []           # "Pipeline / Stage", "pipeline_id/status_id" or status ids',
        "    tags: []",
        "    custom_fields: []    # - {field: ID, in: [a, b]}",
        "    sticky: true         # once synced, a lead stays synced when it leaves the stages",
        "  exclude: {tags: [], name_matches: null, custom_fields: []}",
        "  when_excluded: keep    # keep | mark | delete the record of a lead that no longer fits",
        "  when_deleted: mark     # keep | mark | delete the record of a lead deleted in Kommo",
    ]
    return "".join(f"{line}\n" for line in lines)


def _airtable_part(proposal: Proposal) -> str:
    deals = proposal.deals
    lines = ["airtable:", f"  table: {deals.table.id}  # {_plain(deals.table.name)}"]
    for name, field, missing in (
        ("key_field", deals.key, ""),
        ("status_field", proposal.status, "a text field that is to say how each record stands"),
        ("modified_field", proposal.modified, "a lastModifiedTime field, for on_conflict: newest"),
    ):
        if field is not None:
            lines.append(f"  {name}: {field.id}  # {_named(field)}")
        else:
            lines.append(f"  # {name}: ...  ({missing})")
    lines.append("  when_deleted: recreate  # recreate | ignore a record that a person deleted")
    return "".join(f"{line}\n" for line in lines)


def _entries(found: TableProposal, indent: str, *, with_owner: bool) -> list[str]:
    """The sure ones in the table's order, then the doubtful ones, commented out."""
    order = {field.id: n for n, field in enumerate(found.table.fields)}
    lines: list[str] = []
    for each in sorted(found.sure, key=lambda one: order[one.target.id]):
        lines += [f"{indent}# {_described(each)}", f"{indent}- {_entry(each, with_owner)}"]
    if found.doubtful:
        lines += ["", f"{indent}# Doubtful:"]
    for each in sorted(found.doubtful, key=lambda one: order[one.target.id]):
        lines += [f"{indent}# {_described(each)}", f"{indent}# - {_entry(each, with_owner)}"]
    return lines


def _described(each: Match) -> str:
    what = f"{_named(each.target)} <- {_plain(each.offer.described)}"
    return f"{what}: {each.confidence} %, {_plain(each.why)}"


def _entry(each: Match, with_owner: bool) -> str:
    parts = [f"airtable: {each.target.id}", f"kommo: {each.offer.spelled}"]
    if with_owner and may_share(each):
        parts += ["owner: both", "on_conflict: kommo"]
    if each.target.type in SELECTS:
        parts.append("create_options: true")
    return f"{{{', '.join(parts)}}}"


def may_share(each: Match) -> bool:
    """Whether people may edit the field on both sides, if nobody says otherwise."""
    return each.offer.source.name not in KOMMO_S_OWN and goes_back(each.target, each.offer.source)


def _left_alone(proposal: Proposal) -> str:
    """What of both sides is in no line."""
    deals = proposal.deals
    named = {each.target.id for each in (*deals.sure, *deals.doubtful)}
    named |= {each.field.id for each in proposal.links}
    named |= {each.id for each in (deals.key, proposal.status, proposal.modified) if each}
    alone = [_named(field) for field in deals.table.fields if field.id not in named]
    doubtful = {each.offer for each in deals.doubtful}
    unused = [
        f"{_plain(offer.described)} {offer.spelled}" if offer.type else offer.spelled
        for offer in deals.unused
        if offer not in doubtful
    ]
    return "".join(
        _comment(title, names)
        for title, names in (("In Airtable only", alone), ("In Kommo only", unused))
        if names
    )


def _links_part(links: Sequence[LinkProposal]) -> str:
    lines = [
        "# Contacts and companies: one record each in a table of their own; the deals link to it.",
        "links:",
    ]
    sure = [each for each in links if each.is_sure and each.records.key]
    for each in sure:
        key = each.records.key
        assert key is not None  # noqa: S101 (looked at a line above)
        lines += [
            f"  # {_named(each.field)}",
            f"  - airtable: {each.field.id}",
            f"    kommo: {each.kommo}",
            f"    table: {each.records.table.id}  # {_plain(each.records.table.name)}",
            f"    key_field: {key.id}  # {_named(key)}",
            "    fields:" if each.records.sure else "    fields: []",
            *_entries(each.records, "      ", with_owner=False),
        ]
    for each in links:
        if each not in sure:
            why = "it has no field for Kommo's ids" if each.is_sure else "several fields compete"
            lines.append(
                f"  # Doubtful: {_named(each.field)} <- {each.kommo}, records of "
                f"{_plain(each.records.table.name)}: {why}."
            )
    if not sure:
        lines[1] = "links: []"
    return "".join(f"{line}\n" for line in lines)


def _comment(title: str, names: Iterable[str]) -> str:
    """A list as comment lines of readable length."""
    lines = [f"# {title}:"]
    for name in names:
        if len(lines[-1]) + len(name) + 2 > LINE_LENGTH:
            lines.append("#  ")
        lines[-1] += f" {name};"
    return "".join(f"{line}\n" for line in lines)


def _named(field: AirtableField) -> str:
    return f"{_plain(field.name)} ({field.type})"


def _plain(name: str) -> str:
    """A name as a comment can hold it: on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())
