"""Airtable's API: its spelling, limits and errors."""
