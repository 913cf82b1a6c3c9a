"""What the status field says of a record: one line, written for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kommo_airtable_sync.core.schemas import AirtableField

LENGTH_MAX = 250
NAMES_MAX = 8
"""So many fields are named; a longer list helps nobody."""


def status_text(
    *,
    held: Mapping[str, str] | None = None,
    problems: Iterable[str] = (),
    state: str = "synced",
    excluded: str = "",
) -> str:
    """How a record stands; the same facts give the same text, in whatever order they come.

    Args:
        held: why a field is held (``conflict`` or ``loop``), by the field's name.
        problems: names of the fields whose value one side refused.
        state: of the ledger: ``deleted`` and ``excluded`` say all there is to say.
        excluded: why the lead no longer qualifies.

    Returns:
        ``ok``, ``conflict: Amount, Stage; refused: Owner``, ``excluded: tag x is excluded``, ...
    """
    if state == "deleted":
        return "deleted in Kommo"
    if state == "excluded":
        return _clipped(f"excluded: {excluded}" if excluded else "excluded")
    named: dict[str, list[str]] = {"conflict": [], "loop": [], "refused": list(problems)}
    for name, reason in (held or {}).items():
        named.setdefault(reason, []).append(name)
    parts = [f"{word}: {_listed(names)}" for word, names in named.items() if names]
    return _clipped("; ".join(parts) or "ok")


def status_cell(text: str, field: AirtableField) -> str:
    """The text as the field takes it: a single select has an option for each first word(s)."""
    return text.partition(":")[0] if field.type == "singleSelect" else text


def _listed(names: Iterable[str]) -> str:
    unique = sorted(set(names), key=lambda name: (name.casefold(), name))
    more = f" and {len(unique) - NAMES_MAX} more" if len(unique) > NAMES_MAX else ""
    return ", ".join(unique[:NAMES_MAX]) + more


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LENGTH_MAX else line[: LENGTH_MAX - 1] + "…"
