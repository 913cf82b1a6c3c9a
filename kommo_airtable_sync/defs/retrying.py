"""Dead events tried again from the UI: the job ``retry_events``, as ``events retry`` does it."""

# Dagster's own signatures are partly untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false

from contextlib import closing

import dagster as dg
from pydantic import Field

from kommo_airtable_sync.core.errors import ConfigurationError
from kommo_airtable_sync.defs.lanes import BULK_TAGS
from kommo_airtable_sync.defs.running import NO_RUN_RETRIES
from kommo_airtable_sync.opening import open_database
from kommo_airtable_sync.settings import load_settings
from kommo_airtable_sync.store.reports import Reports

IDS_SHOWN_MAX = 100


class RetryConfig(dg.Config):  # type: ignore[type-arg]
    """Which dead events shall be tried again; give one of the three."""

    ids: list[int] = Field([], description="Event ids, as `events --state dead` lists them.")
    all_dead: bool = Field(False, description="All dead events.")
    reason: str = Field("", description="Those whose error has this text in it, in any case.")


@dg.op
def retry_dead_events(context: dg.OpExecutionContext, config: RetryConfig) -> None:
    """Give dead events a fresh set of attempts; the live lane takes them up at once."""
    if bool(config.ids) + config.all_dead + bool(config.reason) != 1:
        raise _refused("Give one of ids, all_dead and reason in the run's config.")
    try:
        database = open_database(load_settings())
    except ConfigurationError as error:
        raise _refused(str(error)) from error
    with closing(database):
        retried = Reports(database).retry_events(
            config.ids, dead=config.all_dead, reason=config.reason
        )
    if not retried:
        raise _refused("No event that this chooses is dead: see `events --state dead`.")
    shown = ", ".join(map(str, retried[:IDS_SHOWN_MAX]))
    more = f" and {len(retried) - IDS_SHOWN_MAX} more" if len(retried) > IDS_SHOWN_MAX else ""
    context.log.info(f"{len(retried)} events will be tried again: {shown}{more}")
    metadata: dict[str, int | str] = {"events": len(retried), "ids": shown + more}
    others = sorted(set(config.ids) - set(retried))
    if others:
        metadata["not_dead"] = ", ".join(map(str, others[:IDS_SHOWN_MAX]))
        context.log.warning(f"Not dead, left alone: {metadata['not_dead']}")
    context.add_output_metadata(metadata)


def _refused(why: str) -> dg.Failure:
    return dg.Failure(why, allow_retries=False)


@dg.job(
    description="Try dead events again: by id, all of them, or by what their error says.",
    executor_def=dg.in_process_executor,
    # Not the live queue: there it would send the lingering live run away.
    tags={**BULK_TAGS, **NO_RUN_RETRIES},
)
def retry_events() -> None:
    """One look at the inbox."""
    retry_dead_events()
