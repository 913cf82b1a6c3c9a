"""Call the user's own functions (``enrich`` of ``sync.yaml``), which must not stop the batch."""

from __future__ import annotations

import copy
import importlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from kommo_airtable_sync.core.enrichment import kind_of
from kommo_airtable_sync.core.errors import LeadFailed
from kommo_airtable_sync.core.problems import Mistakes
from kommo_airtable_sync.core.sources import CLIPPED_AT, UnfitError
from kommo_airtable_sync.core.types import Json

DEADLINE_SECONDS = 2.0
# A call that never ends keeps its thread; beyond so many, functions are not called any more.
HANGING_MAX = 4

Function = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Enrichment:
    """One entry of ``enrich``: ``package.module:function``, and the function."""

    entry: str
    function: Function


def load_functions(entries: Sequence[str], source: str = "sync.yaml") -> tuple[Enrichment, ...]:
    """Import what ``enrich`` names.

    Raises:
        ConfigurationError: naming every entry that cannot be imported or called, and why.
    """
    loaded: list[Enrichment] = []
    found: list[str] = []
    for i, entry in enumerate(entries):
        module, _, name = entry.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except Exception as error:  # noqa: BLE001 (foreign code runs on import: anything may come)
            found.append(f"enrich[{i}]: {entry} cannot be imported: {_named(error)}")
            continue
        if callable(function):
            loaded.append(Enrichment(entry, cast("Function", function)))
        else:
            found.append(f"enrich[{i}]: {entry} is not a function")
    if found:
        raise Mistakes(source, found)
    return tuple(loaded)


class Enricher:
    """Calls the functions, one lead after another.

    Args:
        functions: in the order of ``sync.yaml``.
        hanging_max: so many calls may be past their deadline and still running.
    """

    def __init__(self, functions: Sequence[Enrichment], *, hanging_max: int = HANGING_MAX) -> None:
        self._functions = tuple(functions)
        self._free = threading.BoundedSemaphore(hanging_max)

    def enrich(
        self, lead: Mapping[str, Json], deadline_seconds: float = DEADLINE_SECONDS
    ) -> dict[str, object]:
        """What the functions say of a lead: value by Airtable field name.

        Args:
            lead: as Kommo's API v4 gives it; each function gets a copy of its own.
            deadline_seconds: for each function.

        Raises:
            LeadFailed: naming the function: it failed, was late or gave what no cell can hold.
        """
        values: dict[str, object] = {}
        for each in self._functions:
            given = _checked(
                each.entry, self._call(each, copy.deepcopy(dict(lead)), deadline_seconds)
            )
            for name in given.keys() & values.keys():
                raise _failed(each.entry, f"{name!r} is given by another function too")
            values |= given
        return values

    def _call(self, each: Enrichment, lead: dict[str, Json], seconds: float) -> object:
        if not self._free.acquire(blocking=False):
            raise _failed(each.entry, "earlier calls still hang", permanent=False)
        answers: queue.SimpleQueue[tuple[object, str]] = queue.SimpleQueue()

        def run() -> None:
            answer: tuple[object, str] = (None, "it failed")
            try:
                answer = (each.function(lead), "")
            except BaseException as error:  # noqa: BLE001 (foreign code, in a thread of its own:
                # whatever it raises, SystemExit included, is about this lead only)
                answer = (None, _named(error))
            finally:
                self._free.release()
                answers.put(answer)

        # Daemon, since a function that never returns must not keep the process from ending.
        threading.Thread(target=run, name=f"enrich {each.entry}", daemon=True).start()
        try:
            value, error = answers.get(timeout=seconds)
        except queue.Empty:
            late = f"no answer within {seconds:g} s"
            raise _failed(each.entry, late, permanent=False) from None
        if error:
            raise _failed(each.entry, error, permanent=False)
        return value


def _checked(entry: str, given: object) -> dict[str, object]:
    if not isinstance(given, dict):
        raise _failed(entry, f"it returned {type(given).__name__}, not a dict")
    values = cast("dict[object, object]", given)
    for name, value in values.items():
        if not isinstance(name, str):
            raise _failed(entry, f"{name!r} is not the name of an Airtable field")
        try:
            kind_of(value)
        except UnfitError as error:
            raise _failed(entry, f"{name}: {error}") from error
    return cast("dict[str, object]", values)


def _failed(entry: str, why: str, *, permanent: bool = True) -> LeadFailed:
    return LeadFailed(f"enrich: {entry}: {why}.", permanent=permanent)


def _named(error: BaseException) -> str:
    said = str(error)[:CLIPPED_AT]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
