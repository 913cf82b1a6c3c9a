"""The webhook endpoint: durable first, then 200."""
