"""Dagster's entry point; everything is wired under ``defs/``.

Not by ``load_from_defs_folder``: it looks for a pyproject.toml above the package, and an installed
wheel has none.
"""

import warnings
from pathlib import Path

import dagster as dg

from kommo_airtable_sync import defs as wiring


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, jobs, sensors and resources; loads with an empty environment."""
    tree = dg.ComponentTree.from_module(defs_module=wiring, project_root=Path(__file__).parents[1])
    with warnings.catch_warnings():
        # Dagster's own way through the folder, of which it does not warn in the other function.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return tree.build_defs()
