"""The table in docs/types.md is the one in the code.

``UPDATE_DOCS=1 make test ARGS=tests/core/test_types_page.py`` writes it anew.
"""

from __future__ import annotations

import os
from pathlib import Path

from kommo_airtable_sync.core.codecs import CELL_KINDS, COMPUTED
from tests.core.pairs import BOTH_WAYS, NAMES, TARGETS

PAGE = Path(__file__).parents[2] / "docs" / "types.md"
START, END = "<!-- the table: made from the code -->\n", "<!-- end of the table -->"
# Links have a part of sync.yaml of their own.
KINDS = [kind for kind in dict.fromkeys(CELL_KINDS.values()) if kind != "link"]


def types_of(kind: str) -> list[str]:
    return [type_ for type_, held in CELL_KINDS.items() if held == kind]


def row(name: str) -> str:
    marks = {
        kind: "both" if set(types_of(kind)) <= set(BOTH_WAYS[name])
        else "Kommo" if set(types_of(kind)) <= set(TARGETS[name]) else ""
        for kind in KINDS
    }  # fmt: skip
    shown = f"custom field, {name.removeprefix('custom ')}" if "custom" in name else f"`{name}`"
    return "| " + " | ".join([shown, *marks.values()]) + " |"


def table() -> str:
    heads = ["<br>".join(types_of(kind)) for kind in KINDS]
    lines = ["| Kommo | " + " | ".join(heads) + " |", "|---" * (len(KINDS) + 1) + "|"]
    return "\n".join([*lines, *map(row, NAMES)]) + "\n"


def test_the_table_of_types_is_what_the_code_allows():
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    wanted = before + START + table() + END + after
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(wanted, encoding="utf-8")
    assert wanted == PAGE.read_text(encoding="utf-8")


def test_a_kind_of_cell_is_allowed_as_a_whole_or_not_at_all():
    # So that a column of the table may stand for all its types.
    for allowed in (TARGETS, BOTH_WAYS):
        for name, types in allowed.items():
            for kind in KINDS:
                inside = set(types_of(kind)) & set(types)
                assert inside in (set(), set(types_of(kind))), (name, kind)


def test_the_page_names_the_types_that_cannot_be_mapped():
    text = PAGE.read_text(encoding="utf-8")
    left_out = {*COMPUTED, "multipleCollaborators"}
    assert [name for name in sorted(left_out) if f"`{name}`" not in text] == []
    assert not left_out & CELL_KINDS.keys()
