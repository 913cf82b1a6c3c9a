"""Dagster's entry point; everything is wired under ``defs/``."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, jobs, sensors and resources; loads with an empty environment."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
