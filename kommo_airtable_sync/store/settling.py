"""How the work on a key ended, and what that does to its events and its place in ``due``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from kommo_airtable_sync.store.database import Connection, storable
from kommo_airtable_sync.store.schema import due, events

ERROR_CHARACTERS_MAX = 2_000
# The directive of a held event that a person let go.
RELEASED = '{"release":true}'
# So begins the answer to a directive that was not followed; the reason comes after it.
REFUSED = "refused: "


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the work on one key ended.

    Args:
        state: ``done``; ``dead`` (a person must look); ``held`` (a person must allow it); ``retry``
            (counts as an attempt); ``released`` (nobody's fault: back into the queue as it was).
        outcome: for done: ``created``, ``updated``, ``unchanged``, ``stale``, ``filtered``,
            ``absent``; for held: ``braked``, ``vanished``.
        error: one sentence for people.
        due_in_seconds: for retry and released.
    """

    state: Literal["done", "dead", "held", "retry", "released"]
    outcome: str | None = None
    error: str | None = None
    due_in_seconds: float = 0.0


def settle_events(
    connection: Connection,
    batch_id: int,
    outcomes: Mapping[str, Outcome],
    max_attempts: int,
    now: float,
) -> None:
    """One statement for each distinct outcome: a batch of 50 has a handful of them."""
    alike: defaultdict[Outcome, list[str]] = defaultdict(list)
    for key, outcome in outcomes.items():
        alike[replace(outcome, due_in_seconds=0.0)].append(key)
    for outcome, keys in alike.items():
        connection.execute(
            sa.update(events)
            .where(
                events.c.batch_id == batch_id, events.c.key.in_(keys), events.c.state == "claimed"
            )
            .values(_settled_values(outcome, max_attempts, now))
        )
    _supersede(connection, outcomes, now)


def _supersede(connection: Connection, outcomes: Mapping[str, Outcome], now: float) -> None:
    """What once failed or was held has now been made good by the same one write path.

    Not by an event that was stale: it was settled without a look at the lead. And what a person
    decided is not made good by another's look.
    """
    looked = [
        key
        for key, outcome in outcomes.items()
        if outcome.state == "done" and outcome.outcome != "stale"
    ]
    hint = sa.or_(events.c.directive.is_(None), events.c.directive == RELEASED)
    connection.execute(
        sa.update(events)
        .where(
            events.c.key.in_(looked),
            sa.or_(events.c.state == "dead", sa.and_(events.c.state == "held", hint)),
        )
        .values(
            state="done",
            # A directive keeps its answer.
            outcome=sa.case(
                (hint, "superseded"), else_=sa.func.coalesce(events.c.outcome, "superseded")
            ),
            settled_at=now,
        )
    )


def answer_directives(connection: Connection, batch_id: int, answers: Mapping[int, str]) -> None:
    """Keep what came of each directive, unless it goes back to the queue."""
    if answers:
        connection.execute(
            sa.update(events)
            .where(
                events.c.id == sa.bindparam("its_id"),
                events.c.batch_id == batch_id,
                events.c.state != "pending",
            )
            .values(outcome=sa.bindparam("answer")),
            [
                {"its_id": event_id, "answer": storable(answer)[:ERROR_CHARACTERS_MAX]}
                for event_id, answer in sorted(answers.items())
            ],
        )


def _settled_values(outcome: Outcome, max_attempts: int, now: float) -> dict[str, Any]:
    error = storable(outcome.error or "")[:ERROR_CHARACTERS_MAX] or None
    if outcome.state == "released":
        return {"state": "pending"}
    if outcome.state == "retry":
        attempts = events.c.attempts + 1
        spent = attempts >= max_attempts
        return {
            "attempts": attempts,
            "error": error,
            "state": sa.case((spent, "dead"), else_="pending"),
            "settled_at": sa.case((spent, now), else_=None),
        }
    return {
        "state": outcome.state,
        "settled_at": None if outcome.state == "held" else now,
        "outcome": outcome.outcome,
        "error": error,
    }


def free_keys(
    connection: Connection, batch_id: int, outcomes: Mapping[str, Outcome], now: float
) -> None:
    """Take finished keys off the list; put those with pending events back into it."""
    newer = sa.func.max(sa.case((events.c.batch_id == batch_id, 0), else_=1))
    pending = {
        row.key: bool(row.newer)
        for row in connection.execute(
            sa.select(events.c.key, newer.label("newer"))
            .where(events.c.key.in_(list(outcomes)), events.c.state == "pending")
            .group_by(events.c.key)
        )
    }
    finished = [key for key in outcomes if key not in pending]
    connection.execute(sa.delete(due).where(due.c.key.in_(finished)))
    again: defaultdict[float, list[str]] = defaultdict(list)
    for key, has_newer in pending.items():
        wait = 0.0 if has_newer else outcomes[key].due_in_seconds
        again[now + wait].append(key)
    for due_at, keys in again.items():
        connection.execute(
            sa.update(due)
            .where(due.c.key.in_(keys))
            .values(token=None, lease_until=None, due_at=due_at)
        )
