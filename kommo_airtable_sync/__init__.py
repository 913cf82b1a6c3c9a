"""Kommo leads and Airtable records kept the same, as a Dagster project.

Reading order, from the idea to the wiring:

1. ``core``      what a lead, a field and a change are; mapping, filters, the merge. Pure.
2. ``store``     the SQL that carries correctness: inbox, journal, ledger, limiter.
3. ``kommo``, ``airtable``  the two APIs: spelling, limits, errors; over ``transport``, HTTP.
4. ``engine``    the story of one batch: claim, read, merge, write, settle, follow.
5. ``defs``      the same story as Dagster assets, jobs and sensors; see ``definitions``.
6. ``receiver``  the webhook endpoint: durable first, then 200.
7. ``runtime``   how it runs warm: Celery worker, launcher, ``up``.
8. ``sandbox``   faithful stand-ins for both APIs; ``cli``  the commands.
"""

__version__ = "0.1.0"
