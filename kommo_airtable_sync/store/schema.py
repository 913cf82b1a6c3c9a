"""The tables. Four of them carry the correctness (design 3): due, journal, ledger, events.

Times are seconds since the epoch, UTC, as doubles: both engines compare and index them alike.
Values are canonical values as JSON text (``core.canonical``).
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Sorted by code point on both engines, as Python sorts: the one order in which rows are locked.
Key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("key", Key, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    # pending, claimed, held, done, dead, quarantined, ignored, dropped
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("occurred_at", sa.Double),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("always_read", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("payload", sa.Text),
    # What a person decided: undo, conflicts resolve, apply, holds release.
    sa.Column("directive", sa.Text),
    # (webhook, cursor) of an Airtable payload: delivered twice, stored once.
    sa.Column("dedupe_key", sa.Text, unique=True),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("batch_id", BigId),
    sa.Column("run_id", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("settled_at", sa.Double),
    sa.Index("ix_events_key_state", "key", "state"),
    sa.Index("ix_events_state_id", "state", "id"),
    sa.Index("ix_events_batch", "batch_id"),
    # The latest settlements of a lane (latency), and those old enough to be pruned.
    sa.Index(
        "ix_events_settled",
        "priority",
        "settled_at",
        sqlite_where=sa.text("settled_at IS NOT NULL"),
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

due = sa.Table(
    "due",
    metadata,
    sa.Column("key", Key, primary_key=True),
    sa.Column("due_at", sa.Double, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("lease_until", sa.Double),
    # The batch that may act on the key now: the fencing token.
    sa.Column("token", BigId),
    sa.Index("ix_due_priority_due_at", "priority", "due_at"),
    sa.Index("ix_due_token", "token"),
)

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("lane", sa.Integer, nullable=False),
    sa.Column("claimed_at", sa.Double, nullable=False),
    sa.Column("settled_at", sa.Double),
    sa.Index("ix_batches_run", "run_id"),
    # Tokens and run keys must never come back, even after pruning.
    sqlite_autoincrement=True,
)

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("key", Key, primary_key=True),
    sa.Column("record_id", sa.Text),
    # synced, excluded, deleted, ignored
    sa.Column("state", sa.Text, nullable=False, server_default="synced"),
    # {airtable field id: [value seen in Kommo, value seen in Airtable, mapping fingerprint]}, with
    # a fourth item, true, if one of them was not seen yet but expected
    sa.Column("fields", sa.Text, nullable=False),
    # From a GET of the whole lead, never from a PATCH answer (design 3.2).
    sa.Column("seen_updated_at", sa.Double),
    sa.Column("written_at", sa.Double),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Index("ix_ledger_record", "record_id"),
)

journal = sa.Table(
    "journal",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("batch_id", BigId, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("event_id", BigId),
    sa.Column("key", Key, nullable=False),
    sa.Column("record_id", sa.Text),
    sa.Column("side", sa.Text, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),  # create, update, delete, note
    sa.Column("field", sa.Text, nullable=False),  # Airtable field id
    sa.Column("field_name", sa.Text, nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text),
    sa.Column("rule", sa.Text, nullable=False),
    # open = an intent; done = acknowledged; refused; superseded = a later merge settled it
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("closed_at", sa.Double),
    # A key's history, and what was written to it a moment ago.
    sa.Index("ix_journal_key", "key", "closed_at"),
    sa.Index("ix_journal_run", "run_id"),
    sa.Index("ix_journal_batch", "batch_id"),
    # Open intents are few and looked for in every batch.
    sa.Index(
        "ix_journal_open",
        "key",
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    ),
    # The brake's window; an initial load's creations are many and do not count.
    sa.Index(
        "ix_journal_changes",
        "created_at",
        sqlite_where=sa.text("operation <> 'create'"),
        postgresql_where=sa.text("operation <> 'create'"),
    ),
)

held_fields = sa.Table(
    "held_fields",
    metadata,
    sa.Column("key", Key, primary_key=True),
    sa.Column("field", sa.Text, primary_key=True),  # Airtable field id
    sa.Column("field_name", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),  # conflict, loop
    sa.Column("kommo", sa.Text, nullable=False),
    sa.Column("airtable", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
)

runners = sa.Table(
    "runners",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("lane", sa.Integer, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    # standby (waits for the lane), running (claims), retiring (will claim no more)
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("heartbeat_at", sa.Double, nullable=False),
)

nudges = sa.Table(
    "nudges",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("lane", sa.Integer, nullable=False),
    sa.Column("requested_at", sa.Double, nullable=False),
    sa.Column("run_id", sa.Text),
    sqlite_autoincrement=True,
)

sides = sa.Table(
    "sides",
    metadata,
    sa.Column("side", sa.Text, primary_key=True),
    sa.Column("paused_until", sa.Double, nullable=False),
    sa.Column("paused_since", sa.Double, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
)

documents = sa.Table(
    "documents",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("stored_at", sa.Double, nullable=False),
)

consents = sa.Table(
    "consents",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),  # its address
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("access_token", sa.Text, nullable=False),
    sa.Column("refresh_token", sa.Text, nullable=False),
    sa.Column("granted_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    # An intent: the refresh token may have been exchanged since, and the answer lost.
    sa.Column("asked_at", sa.Double),
    sa.Column("refused_at", sa.Double),
    sa.Column("lease_until", sa.Double),
    sa.Column("lease_id", sa.Integer, nullable=False),
    # Hashes of the refresh tokens that people have set.
    sa.Column("seeds", sa.Text, nullable=False),
)
