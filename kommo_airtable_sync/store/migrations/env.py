"""Alembic's entry: always on a connection that ``Database.migrate`` has opened and locked."""

from alembic import context

from kommo_airtable_sync.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
)
context.run_migrations()
