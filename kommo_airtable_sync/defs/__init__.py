"""Dagster wiring only: each op is a few lines around one engine function."""
