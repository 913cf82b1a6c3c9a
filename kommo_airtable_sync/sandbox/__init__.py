"""Faithful local stand-ins for Kommo and Airtable, for demos, your own mappings and our tests."""
