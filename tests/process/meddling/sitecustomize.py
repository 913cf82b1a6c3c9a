"""Python loads this in every process of a stack whose PYTHONPATH has the folder: ground that shakes.

A file of the stack says what is wrong at the moment: ``clock`` is so many seconds fast, no file may
grow beyond ``file_bytes_max``, SQLite is ``read_only``.
"""

import importlib.abc
import importlib.util
import json
import os
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

GROUND = Path(os.environ["GROUND"])
_true_time = time.time


def ground():
    """What is wrong; all of it absent is solid ground."""
    return json.loads(GROUND.read_text()) if GROUND.exists() else {}


class Meddler(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets a module be loaded as always, and then has a hand in it."""

    def __init__(self):
        self.hands = {
            "kommo_airtable_sync.assembly": meddle_with_clock,
            "kommo_airtable_sync.store.database": meddle_with_store,
        }

    def find_spec(self, name, path=None, target=None):
        hand = self.hands.pop(name, None)  # once: what follows finds the module itself
        spec = hand and importlib.util.find_spec(name)
        if spec:
            load = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (load(module), hand(module))
        return spec


def meddle_with_clock(module):
    """The machine's clock, as the product asks for it."""
    true_now = module.SystemClock.now
    fast = lambda self: true_now(self) + timedelta(seconds=ground().get("clock", 0))  # noqa: E731
    module.SystemClock.now = fast


def meddle_with_store(module):
    """The disk below SQLite, as each transaction finds it."""
    true_begin = module._begin_sqlite

    def begin(connection):
        now = ground()
        soft = now.get("file_bytes_max", resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
        connection.exec_driver_sql(f"PRAGMA query_only = {int(now.get('read_only', False))}")
        true_begin(connection)

    module._begin_sqlite = begin


time.time = lambda: _true_time() + ground().get("clock", 0)
sys.meta_path.insert(0, Meddler())
