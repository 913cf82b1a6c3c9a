"""The first tables: inbox, journal, ledger, held fields, runners, sides, counters, documents."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("claimed_at", sa.Double, nullable=False),
        sa.Column("settled_at", sa.Double, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_batches_run", "batches", ["run_id"], unique=False)
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", "label"),
    )
    op.create_table(
        "documents",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("stored_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "due",
        sa.Column("key", KEY, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Double, nullable=True),
        sa.Column("token", BIG_ID, nullable=True),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_due_priority_due_at", "due", ["priority", "due_at"], unique=False)
    op.create_index("ix_due_token", "due", ["token"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("key", KEY, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("occurred_at", sa.Double, nullable=True),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("always_read", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=True),
        sa.Column("directive", sa.Text(), nullable=True),
        sa.Column("dedupe_key", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("batch_id", BIG_ID, nullable=True),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("settled_at", sa.Double, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("dedupe_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_batch", "events", ["batch_id"], unique=False)
    op.create_index("ix_events_key_state", "events", ["key", "state"], unique=False)
    op.create_index(
        "ix_events_settled",
        "events",
        ["priority", "settled_at"],
        unique=False,
        sqlite_where=sa.text("settled_at IS NOT NULL"),
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.create_index("ix_events_state_id", "events", ["state", "id"], unique=False)
    op.create_table(
        "held_fields",
        sa.Column("key", KEY, nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("field_name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("kommo", sa.Text(), nullable=False),
        sa.Column("airtable", sa.Text(), nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", "field"),
    )
    op.create_table(
        "journal",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("batch_id", BIG_ID, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("event_id", BIG_ID, nullable=True),
        sa.Column("key", KEY, nullable=False),
        sa.Column("record_id", sa.Text(), nullable=True),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("field_name", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("closed_at", sa.Double, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_journal_batch", "journal", ["batch_id"], unique=False)
    op.create_index(
        "ix_journal_changes",
        "journal",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("operation <> 'create'"),
        postgresql_where=sa.text("operation <> 'create'"),
    )
    op.create_index("ix_journal_key", "journal", ["key", "closed_at"], unique=False)
    op.create_index(
        "ix_journal_open",
        "journal",
        ["key"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index("ix_journal_run", "journal", ["run_id"], unique=False)
    op.create_table(
        "ledger",
        sa.Column("key", KEY, nullable=False),
        sa.Column("record_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default="synced", nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.Column("seen_updated_at", sa.Double, nullable=True),
        sa.Column("written_at", sa.Double, nullable=True),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_ledger_record", "ledger", ["record_id"], unique=False)
    op.create_table(
        "nudges",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.Double, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "runners",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("heartbeat_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "sides",
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("paused_until", sa.Double, nullable=False),
        sa.Column("paused_since", sa.Double, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("side"),
    )


def downgrade() -> None:
    op.drop_table("sides")
    op.drop_table("runners")
    op.drop_table("nudges")
    op.drop_index("ix_ledger_record", table_name="ledger")
    op.drop_table("ledger")
    op.drop_index("ix_journal_run", table_name="journal")
    op.drop_index(
        "ix_journal_open",
        table_name="journal",
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.drop_index("ix_journal_key", table_name="journal")
    op.drop_index(
        "ix_journal_changes",
        table_name="journal",
        sqlite_where=sa.text("operation <> 'create'"),
        postgresql_where=sa.text("operation <> 'create'"),
    )
    op.drop_index("ix_journal_batch", table_name="journal")
    op.drop_table("journal")
    op.drop_table("held_fields")
    op.drop_index("ix_events_state_id", table_name="events")
    op.drop_index(
        "ix_events_settled",
        table_name="events",
        sqlite_where=sa.text("settled_at IS NOT NULL"),
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.drop_index("ix_events_key_state", table_name="events")
    op.drop_index("ix_events_batch", table_name="events")
    op.drop_table("events")
    op.drop_index("ix_due_token", table_name="due")
    op.drop_index("ix_due_priority_due_at", table_name="due")
    op.drop_table("due")
    op.drop_table("documents")
    op.drop_table("counters")
    op.drop_index("ix_batches_run", table_name="batches")
    op.drop_table("batches")
