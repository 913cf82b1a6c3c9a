"""Both stand-ins in one process, as the command ``sandbox`` and the demo run them."""

from __future__ import annotations

import logging
import signal
import threading

from kommo_airtable_sync.sandbox.airtable import app as airtable_app
from kommo_airtable_sync.sandbox.airtable.model import AirtableModel
from kommo_airtable_sync.sandbox.deliverer import WebhookDeliverer
from kommo_airtable_sync.sandbox.kommo import server as kommo_server
from kommo_airtable_sync.sandbox.kommo.model import KommoModel
from kommo_airtable_sync.sandbox.kommo.seed import seed_leads

LATENCY_SECONDS = 0.12
FAST_LOCK_SCALE = 1 / 30

log = logging.getLogger(__name__)


def serve_both(kommo_port: int, airtable_port: int, *, fast: bool, leads: int = 0) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        kommo_port: Kommo's stand-in listens here, on loopback.
        airtable_port: Airtable's stand-in listens here, on loopback.
        fast: no latency, and a short rate lock; else 120 ms a call and the real limits.
        leads: deals to begin with.
    """
    clock = kommo_server.SystemClock()
    kommo = KommoModel(clock)
    kommo.seed_account()
    airtable = AirtableModel(clock)
    airtable.seed_base()
    if fast:
        airtable.settings.lock_scale = FAST_LOCK_SCALE
    else:
        kommo.settings.latency_seconds = LATENCY_SECONDS
        airtable.settings.latency_seconds = LATENCY_SECONDS
    if leads:
        seed_leads(kommo.state, leads, kommo.seed, kommo.now())
    servers = (
        kommo_server.create_server(kommo, "127.0.0.1", kommo_port),
        airtable_app.make_server(airtable, "127.0.0.1", airtable_port),
    )

    def stop(*_: object) -> None:
        for server in servers:
            server.should_exit = True

    threads = [threading.Thread(target=server.run) for server in servers]
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    with WebhookDeliverer(kommo), WebhookDeliverer(airtable):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
