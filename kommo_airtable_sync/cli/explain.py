"""``explain``: what stands on both sides of a deal, and who wrote what, why, in which run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kommo_airtable_sync.cli.output import print_json, print_table
from kommo_airtable_sync.core.canonical import shown
from kommo_airtable_sync.settings import load_settings

if TYPE_CHECKING:
    from kommo_airtable_sync.core.explaining import CauseEvent, JournalRow
    from kommo_airtable_sync.engine.explain import Explanation, FieldView, Shown
    from kommo_airtable_sync.store.reports import ListedEvent, ListedState, Reports

OPEN_STATES: tuple[ListedState, ...] = ("pending", "claimed", "retrying", "held", "dead")
VALUE_CHARACTERS_MAX = 60
ROWS_SHOWN_MAX = 50
RunLink = Callable[[str], str]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: kommo-airtable-sync explain 123 --field Amount")(explain)


def explain(
    lead: Annotated[int, typer.Argument(help="Kommo lead id.")],
    field: Annotated[str | None, typer.Option(help="Only this Airtable field: name or id.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """Show what both sides of a deal hold now, and how it came there."""
    from kommo_airtable_sync.assembly import build_engine
    from kommo_airtable_sync.core.types import LIVE, lead_key
    from kommo_airtable_sync.engine.explain import explain as explain_lead
    from kommo_airtable_sync.store.reports import Reports

    settings = load_settings()
    engine = build_engine(settings, LIVE)
    found = explain_lead(engine, lead)
    if field is not None:
        found = _only(found, field)
    waiting = _open_events(Reports(engine.database), lead)
    port = settings.dagster_port
    link: RunLink = lambda run: f"http://127.0.0.1:{port}/runs/{run}" if port else run  # noqa: E731
    urls = {"kommo": engine.directory.kommo_url(lead_key(lead)), "airtable": None}
    if found.record_id and found.fields:
        urls["airtable"] = engine.directory.record_url(found.key, found.record_id)
    if as_json:
        print_json(_document(found, waiting, urls, link))
        return
    typer.echo(f"Lead {lead}: {urls['kommo']}")
    typer.echo(f"Record {urls['airtable'] or found.record_id or '(none known)'}")
    typer.echo(f"Kept in step: {found.state or 'not known to the sync'}")
    for side, reason in found.unreadable.items():
        typer.echo(f"{side.capitalize()} is not shown: {reason}")
    _print_fields(found.fields)
    _print_causes(found.fields, link)
    _print_events(waiting)
    _print_journal(found.rows, link)


def _only(found: Explanation, wanted: str) -> Explanation:
    """What concerns one field; it may be one that is only in the journal."""
    name = wanted.casefold()
    ids = {each.id for each in found.fields if name in (each.name.casefold(), each.id.casefold())}
    ids |= {
        row.field for row in found.rows if name in (row.field_name.casefold(), row.field.casefold())
    }
    if not ids:
        names = ", ".join(each.name for each in found.fields) or "none is known"
        typer.echo(f'there is no field "{wanted}"; fields: {names}', err=True)
        raise typer.Exit(1)
    return replace(
        found,
        fields=[each for each in found.fields if each.id in ids],
        rows=[row for row in found.rows if row.field in ids],
    )


def _open_events(reports: Reports, lead: int) -> list[ListedEvent]:
    """What is still to happen to the lead, or wants a person, oldest first."""
    found = [each for state in OPEN_STATES for each in reports.list_events(state, lead)]
    return sorted(found, key=lambda each: each.id)


def _print_fields(fields: Sequence[FieldView]) -> None:
    print_table(
        "What stands",
        ("field", "owner", "in Kommo", "in Airtable", "agreed on, or held"),
        [
            (each.name, each.owner, _value(each.kommo), _value(each.airtable), _agreed(each))
            for each in fields
        ],
    )


def _print_causes(fields: Sequence[FieldView], link: RunLink) -> None:
    rows: list[Sequence[object]] = []
    for each in fields:
        for side, there in (("Kommo", each.kommo), ("Airtable", each.airtable)):
            if there.cause is not None:
                rows.append((each.name, side, *_told(there.cause), link(there.cause.run_id)))
            elif there.last is not None and there.unread is None:
                rows.append((each.name, side, "", "edited there by somebody since", "", ""))
    print_table(
        "Who wrote it (what is not listed, people entered)",
        ("field", "side", "written", "why", "because of", "run"),
        rows,
    )


def _print_events(waiting: Sequence[ListedEvent]) -> None:
    rows = [(e.id, f"{e.source} {e.kind}", e.state, _time(e.received_at), e.error) for e in waiting]
    print_table("Open events", ("id", "event", "state", "received", "why"), rows)


def _print_journal(journal: Sequence[JournalRow], link: RunLink) -> None:
    latest = journal[::-1][:ROWS_SHOWN_MAX]
    older = len(journal) - len(latest)
    print_table(
        "Journal, newest first" + (f" ({older} older ones: --json)" if older else ""),
        ("side", "field", "before -> after", "written", "why", "because of", "run"),
        [
            (
                row.side,
                row.field_name,
                f"{_clipped(shown(row.before))} -> {_clipped(shown(row.after))}"
                + ("" if row.state == "done" else f" ({row.state})"),
                *_told(row),
                link(row.run_id),
            )
            for row in latest
        ],
    )


def _told(row: JournalRow) -> tuple[str, str, str]:
    """When, why, and because of which event."""
    from kommo_airtable_sync.core.explaining import why
    from kommo_airtable_sync.store.database import instant

    event = row.event
    if event is None:
        because = f"event {row.event_id} (pruned)" if row.event_id else ""
    else:
        at = event.received_at if event.occurred_at is None else event.occurred_at
        because = f"{event.source} {event.kind} {event.id}, {_time(instant(at))}"
    return _time(instant(row.at)), why(row), because


def _value(there: Shown) -> str:
    return "(not read)" if there.unread is not None else _clipped(shown(there.value))


def _agreed(each: FieldView) -> str:
    if each.held is not None:
        return f"held: {each.held.reason}"
    if each.agreed is None:
        return ""
    sides = dict.fromkeys((shown(each.agreed.kommo), shown(each.agreed.airtable)))
    return " | ".join(_clipped(text) for text in sides)


def _clipped(text: str) -> str:
    short = " ".join(text.split())
    return short if len(short) <= VALUE_CHARACTERS_MAX else short[:VALUE_CHARACTERS_MAX] + "..."


def _time(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _document(
    found: Explanation,
    waiting: Sequence[ListedEvent],
    urls: dict[str, str | None],
    link: RunLink,
) -> dict[str, Any]:
    from dataclasses import asdict

    from kommo_airtable_sync.core.canonical import to_json
    from kommo_airtable_sync.core.explaining import why
    from kommo_airtable_sync.store.database import instant

    def event(told: CauseEvent | None) -> dict[str, Any] | None:
        if told is None:
            return None
        occurred = None if told.occurred_at is None else instant(told.occurred_at)
        times = {"occurred_at": occurred, "received_at": instant(told.received_at)}
        return {**asdict(told), **times}

    def write(row: JournalRow | None) -> dict[str, Any] | None:
        if row is None:
            return None
        return {
            **asdict(row),
            "before": to_json(row.before),
            "after": to_json(row.after),
            "at": instant(row.at),
            "why": why(row),
            "event": event(row.event),
            "run_url": link(row.run_id),
        }

    def side(there: Shown) -> dict[str, Any]:
        return {
            "value": to_json(there.value),
            "unread": there.unread,
            "cause": write(there.cause),
            "edited_since": there.unread is None and there.cause is None and there.last is not None,
        }

    def view(each: FieldView) -> dict[str, Any]:
        agreed, held = each.agreed, each.held
        return {
            "field": each.id,
            "field_name": each.name,
            "owner": each.owner,
            "kommo": side(each.kommo),
            "airtable": side(each.airtable),
            "agreed": agreed
            and {"kommo": to_json(agreed.kommo), "airtable": to_json(agreed.airtable)},
            "held": held and {"reason": held.reason, "since": instant(held.since)},
        }

    return {
        "key": found.key,
        "record_id": found.record_id,
        "state": found.state,
        "urls": urls,
        "unreadable": dict(found.unreadable),
        "fields": [view(each) for each in found.fields],
        "events": [asdict(each) for each in waiting],
        "journal": [write(row) for row in found.rows],
    }
