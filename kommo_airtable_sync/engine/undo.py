"""Undo: plan it on the journal, ask for it by directives, see what came of them (design 3.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from kommo_airtable_sync.core import canonical
from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.destinations import is_writable
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.explaining import JournalRow
from kommo_airtable_sync.core.merge import Agreed
from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent
from kommo_airtable_sync.core.undoing import FORGOTTEN, Left, Place, Revert, UndoPlan, plan_undo
from kommo_airtable_sync.engine.braking import ALLOWED
from kommo_airtable_sync.engine.context import LEADS_PER_BATCH, Engine
from kommo_airtable_sync.engine.overrides import NOT_WRITABLE
from kommo_airtable_sync.store import leases
from kommo_airtable_sync.store.history import Answer, History

SOURCE = "undo"
LOOK_SECONDS = 0.3
PATIENCE_SECONDS = 60.0
UNSETTLED = "it still waits for its turn"


@dataclass(frozen=True, slots=True)
class Asked:
    """An undo that was put into the inbox.

    Args:
        after_id: its events are newer than this one.
        token: its directives hold it.
    """

    reverts: Sequence[Revert]
    after_id: int
    token: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it: what went back, and what did not with the reason."""

    reverted: tuple[Revert, ...]
    refused: tuple[Left, ...]


def plan(engine: Engine, selected: Sequence[JournalRow]) -> UndoPlan:
    """What of these writes can be taken back; reads the store, and schemas only if nobody has them.

    Args:
        engine: of either lane.
        selected: rows of the journal, oldest first; refused ones do not count.
    """
    sent = [row for row in selected if row.state != "refused"]
    keys = sorted({row.key for row in sent})
    chosen = {row.id for row in sent}
    others: Iterable[JournalRow] = ()
    if sent:
        rows = History(engine.database).of_keys_from(keys, sent[0].id)
        others = [row for row in rows if row.id not in chosen]
    return plan_undo(sent, others, _agreed(engine, keys), lambda revert: _obstacle(engine, revert))


def ask(engine: Engine, reverts: Sequence[Revert], actor: str) -> Asked:
    """Put a directive for each field into the inbox; a crowd of leads goes behind live changes."""
    history, token = History(engine.database), uuid4().hex
    crowd = len({revert.key for revert in reverts}) > LEADS_PER_BATCH
    asked = Asked(reverts, history.last_event_id(), token)
    engine.inbox.receive(
        [
            IncomingEvent(
                revert.key,
                SOURCE,
                SOURCE,
                priority=BULK if crowd else LIVE,
                always_read=True,
                directive={
                    "field": revert.field,
                    "kommo": canonical.to_json(revert.kommo),
                    "airtable": canonical.to_json(revert.airtable),
                    "value": canonical.to_json(revert.value),
                    "actor": actor,
                    "token": token,
                    ALLOWED: True,
                },
            )
            for revert in reverts
        ]
    )
    return asked


def see_through(engine: Engine, asked: Asked, on_progress: Callable[[int], None]) -> Result:
    """Wait until every directive has ended, or nothing has moved for a minute.

    Args:
        engine: of either lane; others do the work.
        asked: what was put into the inbox.
        on_progress: told how many have ended.
    """
    ended, moved_at = -1, engine.seconds()
    while True:
        answers = History(engine.database).answers(asked.after_id, SOURCE, asked.token)
        now_ended = sum(answer.ended for answer in answers)
        on_progress(now_ended)
        if now_ended != ended:
            ended, moved_at = now_ended, engine.seconds()
        if ended == len(answers) or engine.seconds() - moved_at > PATIENCE_SECONDS:
            return _result(asked, answers)
        engine.clock.sleep(LOOK_SECONDS)


def _result(asked: Asked, answers: Sequence[Answer]) -> Result:
    by_place = {(answer.key, answer.field): answer for answer in answers}
    reverted: list[Revert] = []
    refused: list[Left] = []
    for revert in asked.reverts:
        answer = by_place[revert.key, revert.field]
        if answer.applied:
            reverted.append(revert)
        else:
            reason = answer.reason if answer.ended else UNSETTLED
            refused.append(Left(revert.key, revert.field_name, reason))
    return Result(tuple(reverted), tuple(refused))


def _agreed(engine: Engine, keys: Sequence[str]) -> dict[Place, Agreed]:
    return {
        (key, name): (agreed.kommo, agreed.airtable)
        for some in leases.in_portions(keys)
        for key, known in engine.journal.load(some).items()
        if known.entry.state == "synced" and known.entry.record_id is not None
        for name, agreed in known.entry.fields.items()
    }


def _obstacle(engine: Engine, revert: Revert) -> str | None:
    """What is known beforehand; whether Kommo's lead takes the value, its merge will see."""
    fields = engine.directory.mapping().fields
    field = next((each for each in fields if each.id == revert.field), None)
    if field is None:
        return FORGOTTEN
    if not same(revert.value, revert.kommo) and not is_writable(field.source):
        return NOT_WRITABLE
    try:
        field.to_cell(revert.value)
    except LeadFailed as failed:
        return failed.reason
    return None
