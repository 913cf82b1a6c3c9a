"""The generated ``dagster.yaml`` (the warm path of design 3.5), written once, then yours."""

from __future__ import annotations

from pathlib import Path

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.settings import Settings

DAGSTER_YAML = """\
# Written by kommo-airtable-sync when this folder was new; it is yours to edit.
# These five settings are what makes a run start in 0.3 s instead of 5 s:
run_coordinator:          # no run-queue loop
  module: dagster._core.run_coordinator
  class: DefaultRunCoordinator
run_launcher:             # runs execute in Celery workers that have everything imported
  module: kommo_airtable_sync.runtime.launcher
  class: WarmRunLauncher
sensors:                  # one sensor tick at a time: webhook_sensor waits inside its tick
  use_threads: false
schedules:
  use_threads: false
compute_logs:             # our ops print nothing; capturing would start two processes a run
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
telemetry:
  enabled: false
retention:
  sensor:
    purge_after_days: {skipped: 2, failure: 14, success: 14}
  schedule:
    purge_after_days: {skipped: 7, failure: 30, success: 30}
"""


POSTGRES_STORAGE = """\
storage:                  # runs and their logs, where several machines share them
  postgres:
    postgres_url: {env: DAGSTER_POSTGRES_URL}
"""


def prepare_home(settings: Settings) -> Path:
    """Create what is missing in DAGSTER_HOME: ``dagster.yaml`` and Celery's folders.

    Returns:
        The folder for sockets, generated configuration and ready marks.

    Raises:
        ConfigurationError: if an older ``dagster.yaml`` says where Dagster keeps its runs, and the
            settings say otherwise.
    """
    home = settings.home
    # Not "logs": Dagster takes a folder of that name for its telemetry and removes it.
    for folder in (home, home / "run", home / "run" / "logs"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    dagster_yaml = home / "dagster.yaml"
    shared = bool(settings.dagster_postgres_url.get_secret_value())
    if not dagster_yaml.exists():
        text = DAGSTER_YAML + (POSTGRES_STORAGE if shared else "")
        dagster_yaml.write_text(text, encoding="utf-8")
    elif shared and "DAGSTER_POSTGRES_URL" not in dagster_yaml.read_text(encoding="utf-8"):
        raise ConfigurationError(
            f"DAGSTER_POSTGRES_URL is set, but {dagster_yaml} does not use it.",
            "Delete that file and it is written anew, or add Dagster's `storage: postgres:`.",
        )
    # The results' folder also where the broker is another one.
    for folder in celery_folders(home):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home / "run"


def celery_folders(home: Path) -> tuple[Path, Path, Path]:
    """Folders of Celery's filesystem transport: messages, control exchanges, results."""
    return home / "celery" / "messages", home / "celery" / "control", home / "celery" / "results"


def write_workspace(settings: Settings, code_server_port: int) -> Path:
    """A workspace file that points webserver and daemon at the one code server."""
    path = settings.home / "run" / "workspace.yaml"
    path.write_text(
        "load_from:\n"
        "  - grpc_server:\n"
        f"      host: 127.0.0.1\n      port: {code_server_port}\n"
        "      location_name: kommo_airtable_sync\n",
        encoding="utf-8",
    )
    return path
