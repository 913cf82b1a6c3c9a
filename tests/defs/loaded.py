"""The project as Dagster loads it."""

from __future__ import annotations

import functools

import dagster as dg

from kommo_airtable_sync.definitions import defs


@functools.cache
def repository() -> dg.RepositoryDefinition:
    """Loaded once, for it takes a while and no test changes it."""
    return defs().get_repository_def()
