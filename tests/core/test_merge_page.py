"""The tables in docs/merge.md are what the code decides, over every combination.

``UPDATE_DOCS=1 make test ARGS=tests/core/test_merge_page.py`` writes them anew.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from typing import get_args

from kommo_airtable_sync.core.merge import (
    MISSING,
    UNREAD,
    Agreed,
    Decision,
    Rule,
    Sent,
    merge_field,
)

PAGE = Path(__file__).parents[2] / "docs" / "merge.md"
START, END = "<!-- {}: made from the code -->\n", "<!-- end of {} -->"
OWNERS, POLICIES = ("kommo", "airtable", "both"), ("kommo", "airtable", "newest", "hold")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
LATER = NOON + timedelta(hours=1)
TIMES = {
    "Kommo's edit is later": (LATER, NOON),
    "Airtable's edit is later": (NOON, LATER),
    "less than 2 s apart, or a time unknown": (None, LATER),
}
BY_POLICY = "*by `on_conflict`*"
NEVER = "–"
AGREED = ("agreed", "agreed")
Value = str | frozenset | None


def decide(owner, policy, kommo, airtable, bases, intents, times) -> Decision:
    return merge_field(
        owner=owner, on_conflict=policy, kommo=kommo, airtable=airtable, bases=bases,
        intents=intents, kommo_at=times[0], airtable_at=times[1],
    )  # fmt: skip


def said(found: Decision, kommo: Value, airtable: object, agreed: Value) -> str:
    """A decision as a cell of the table."""
    written = []
    for name, writes, value, other in (
        ("Airtable", found.write_airtable, found.airtable_value, kommo),
        ("Kommo", found.write_kommo, found.kommo_value, airtable),
    ):
        if writes:
            assert value in (other, agreed), "some third value"
            written.append(f"to {name}" if value == other else f"to {name}, as agreed")
    what = " and ".join(written) or ("held" if found.held else "nothing")
    return f"{what}<br>`{found.rule}`"


def by_policy(bases: list[Agreed], kommo: Value, airtable: Value, intents=()) -> dict[str, str]:
    """What each policy makes of a case of owner ``both``."""
    found: dict[str, str] = {}
    for policy in POLICIES:
        for when, times in TIMES.items():
            name = f"`{policy}`" + (f", {when}" if policy == "newest" else "")
            cell = said(
                decide("both", policy, kommo, airtable, bases, intents, times),
                kommo,
                airtable,
                None,
            )
            assert found.setdefault(name, cell) == cell, "only `newest` goes by time"
    return found


CONFLICTS = {
    "after an agreement": by_policy([AGREED], "new in Kommo", "new in Airtable"),
    "first meeting": by_policy([], "new in Kommo", "new in Airtable"),
}


def cell(
    owner: str, kommo: Value, airtable: object, bases: list[Agreed], intents: list[Sent]
) -> str:
    """One cell of a table: what is written where, and the rule; ``both`` over every policy."""
    if airtable is UNREAD and owner != "kommo":
        return NEVER
    cells = {
        said(
            decide(owner, policy, kommo, airtable, bases, intents, times),
            kommo, airtable, bases[0][1] if bases else None,
        )
        for policy in POLICIES
        for times in TIMES.values()
    }  # fmt: skip
    if len(cells) == 1:
        return cells.pop()
    # Where the policies differ, they must do what the table of policies says, and nothing else.
    assert owner == "both"
    assert by_policy(bases, kommo, airtable, intents) in CONFLICTS.values()
    return BY_POLICY


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def cases(kommos: dict, airtables: dict, bases: list[Agreed]) -> str:
    rows = []
    for (kommo_is, kommo), (airtable_is, airtable) in product(kommos.items(), airtables.items()):
        equal = airtable_is in {"changed to the same", "the same"}
        if (equal and kommo_is == "as agreed") or (
            not equal and kommo is None and airtable is None
        ):
            continue  # told in another row
        shown = kommo if equal else airtable
        cells = [cell(owner, kommo, shown, bases, []) for owner in OWNERS]
        rows.append([kommo_is, airtable_is, *cells])
    return table(["Kommo", "Airtable", *(f"owner `{owner}`" for owner in OWNERS)], rows)


def agreed_table() -> str:
    kommos = {"as agreed": "agreed", "changed": "new in Kommo", "emptied": None}
    airtables = {
        "as agreed": "agreed", "changed": "new in Airtable", "emptied": None,
        "changed to the same": "", "not read": UNREAD, "record gone": MISSING,
    }  # fmt: skip
    return cases(kommos, airtables, [AGREED])


def first_table() -> str:
    airtables = {
        "another value": "theirs", "empty": None, "the same": "", "not read": UNREAD,
        "no record yet": MISSING,
    }  # fmt: skip
    return cases({"a value": "ours", "empty": None}, airtables, [])


def conflict_table() -> str:
    heads = ["`on_conflict`", *CONFLICTS]
    names = CONFLICTS["first meeting"]
    return table(heads, [[name, *(found[name] for found in CONFLICTS.values())] for name in names])


def set_table() -> str:
    """One element of a set of owner ``both``; the same under every policy."""
    states = {"has it, as agreed": (1, 1), "added it": (0, 1), "removed it": (1, 0),
              "lacks it, as agreed": (0, 0)}  # fmt: skip
    rows = []
    for (kommo_did, (before, kommo)), (airtable_did, (same_before, airtable)) in product(
        states.items(), states.items()
    ):
        if before != same_before or kommo == airtable == before:
            continue
        k, a, base = (frozenset(["other", *["it"] * has]) for has in (kommo, airtable, before))
        ends = set()
        for policy in POLICIES:
            found = decide("both", policy, k, a, [(base, base)], [], (None, None))
            in_kommo = found.kommo_value if found.write_kommo else k
            assert in_kommo == (found.airtable_value if found.write_airtable else a)
            ends.add("both have it" if "it" in in_kommo else "neither has it")
        assert len(ends) == 1
        rows.append([kommo_did, airtable_did, ends.pop()])
    return table(["Kommo", "Airtable", "then"], rows)


def mirrored(text: str) -> str:
    swap = {"Kommo": "Airtable", "Airtable": "Kommo", "kommo": "airtable", "airtable": "kommo"}
    return re.sub("|".join(swap), lambda found: swap[found[0]], text)


def crash_table() -> str:
    """An open intent of "sent", towards Airtable; towards Kommo it is the mirror image."""
    shows = {"what it showed before": "agreed", "what was sent": "sent", "something else": "edited"}
    stands = {"as when it was sent": "sent", "changed since": "changed again"}
    sent = {side: [Sent(side, "agreed", ("sent", "sent"))] for side in ("airtable", "kommo")}
    rows = []
    for (there_is, there), (here_is, here) in product(shows.items(), stands.items()):
        cells = [
            cell(owner, here, there, [AGREED], sent["airtable"]) for owner in ("kommo", "both")
        ]
        other = [
            cell(owner, there, here, [AGREED], sent["kommo"]) for owner in ("airtable", "both")
        ]
        assert [mirrored(each) for each in other] == cells
        rows.append([there_is, here_is, *cells])
    return table(["Airtable shows", "Kommo is", "owner `kommo`", "owner `both`"], rows)


TABLES = {
    "agreed": agreed_table, "first": first_table, "conflicts": conflict_table, "sets": set_table,
    "crashes": crash_table,
}  # fmt: skip


def with_tables(text: str) -> str:
    for name, made in TABLES.items():
        before, _, rest = text.partition(START.format(name))
        after = rest.partition(END.format(name))[2]
        text = before + START.format(name) + made() + END.format(name) + after
    return text


def test_the_tables_of_the_merge_are_what_the_code_decides():
    text = PAGE.read_text(encoding="utf-8")
    wanted = with_tables(text)
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(wanted, encoding="utf-8")
    assert wanted == PAGE.read_text(encoding="utf-8")


def test_every_rule_has_its_sentence_and_there_is_no_other():
    section = PAGE.read_text(encoding="utf-8").partition("## The rules")[2]
    named = re.findall(r"^\| `(\w+)` \| .+\. \|$", section, re.M)
    assert sorted(named) == sorted(get_args(Rule))


def test_the_tables_show_every_rule_of_a_whole_value():
    tables = "".join(made() for made in TABLES.values())
    shown = set(re.findall(r"`(\w+)`", tables))
    # Sets are told of in words; the others need a crash, a person or a loop on top.
    others = {"set_merged", "intent_open", "directive", "loop_broken"}
    assert set(get_args(Rule)) - shown == others
