"""Dagster's entry point; everything is wired under ``defs/``.

Not by ``load_from_defs_folder``: it looks for a pyproject.toml above the package, and an installed
wheel has none.
"""

from pathlib import Path

import dagster as dg

from kommo_airtable_sync import defs as wiring


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, jobs, sensors and resources; loads with an empty environment."""
    root = Path(__file__).parents[1]
    return dg.ComponentTree.from_module(defs_module=wiring, project_root=root).build_defs()
