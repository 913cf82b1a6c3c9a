"""A local stand-in for Kommo: API v4, webhooks, limits, faults."""
