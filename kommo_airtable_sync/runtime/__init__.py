"""How it runs warm: Celery worker, launcher, dagster.yaml, supervision."""
