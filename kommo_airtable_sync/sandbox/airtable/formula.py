"""The part of Airtable's formula language that a sync's ``filterByFormula`` needs.

Understood: AND OR, =, IS_AFTER, {field name or id}, strings, numbers, RECORD_ID(). All else is
refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kommo_airtable_sync.sandbox.airtable.kinds import as_text, read_cell
from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, refuse
from kommo_airtable_sync.sandbox.airtable.schema import Record, Table

Json = Any

RECORD_ID = ""
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?(?:\d+(?:\.\d+)?|\.\d+)) | (?P<name>[A-Za-z_]+)(?=\s*\() |
    (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*') | \{(?P<field>(?:[^}\\]|\\.)+)\} |
    (?P<symbol>[=(),]))""",
    re.VERBOSE | re.DOTALL,
)
# Types whose cells an index finds by a literal of that type.
_INDEXED = {"number": float, "singleLineText": str, "multilineText": str, "email": str}


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula, or a part of one.

    Args:
        evaluate: its value for one record.
        keys: if not None, only rows with one of these (field id, value) can be true, so that
            they are looked up; ``RECORD_ID`` stands for the record's own id.
        source: of a bare field: its id and the type of its index; of RECORD_ID(): the same.
        literal: the value of a constant.
    """

    evaluate: Callable[[Record], Json]
    keys: tuple[tuple[str, Json], ...] | None = None
    source: tuple[str, type | None] | None = None
    literal: Json = None

    def keeps(self, record: Record) -> bool:
        """Whether the row stays: not for 0, false, "", [] and errors (AT:list-records)."""
        return bool(self.evaluate(record))


def compile_formula(text: str, table: Table, now: datetime) -> Formula:
    """Parse a formula about a table, or 422; ``now`` is for reading cells."""
    try:
        return _Parser(text, table, now).whole()
    except RecursionError:
        raise _invalid() from None


def _invalid(why: str = "Invalid formula. Please check your formula text.") -> Refusal:
    return refuse("INVALID_FILTER_BY_FORMULA", why)


class _Parser:
    def __init__(self, text: str, table: Table, now: datetime) -> None:
        self._left = _tokens(text)
        self._table = table
        self._now = now

    def whole(self) -> Formula:
        found = self._comparison()
        self._expect("end", "")
        return found

    def _expect(self, *token: str) -> None:
        if self._left.pop() != token:
            raise _invalid()

    def _comparison(self) -> Formula:
        left = self._operand()
        while self._left[-1] == ("symbol", "="):
            self._left.pop()
            left = _equal(left, self._operand())
        return left

    def _operand(self) -> Formula:
        kind, text = self._left.pop()
        match kind, text:
            case "number", _:
                return _literal(float(text))
            case "string", _:
                return _literal(re.sub(r"(?s)\\(.)", r"\1", text[1:-1]))
            case "field", _:
                return self._field(re.sub(r"(?s)\\(.)", r"\1", text))
            case "name", _:
                return _call(text.upper(), self._arguments())
            case "symbol", "(":
                inner = self._comparison()
                self._expect("symbol", ")")
                return inner
            case _:
                raise _invalid()

    def _field(self, name: str) -> Formula:
        field, now = self._table.find_field(name), self._now
        if field is None:
            raise _invalid(f"Unknown field names: {name.lower()}")
        source = (field.id, _INDEXED.get(field.type))
        return Formula(lambda record: read_cell(record, field, now), source=source)

    def _arguments(self) -> list[Formula]:
        self._expect("symbol", "(")
        found: list[Formula] = []
        while self._left[-1] != ("symbol", ")"):
            if found:
                self._expect("symbol", ",")
            found.append(self._comparison())
        self._left.pop()
        return found


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of all tokens, the first one last."""
    found: list[tuple[str, str]] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _invalid()
        found.append((str(match.lastgroup), match[str(match.lastgroup)]))
        at = match.end()
    return [("end", ""), *reversed(found)]


def _literal(value: Json) -> Formula:
    return Formula(lambda _: value, literal=value)


def _equal(left: Formula, right: Formula) -> Formula:
    def evaluate(record: Record) -> bool:
        return _plain(left.evaluate(record)) == _plain(right.evaluate(record))

    source, value = left.source or right.source, left.literal or right.literal
    if source is None or not value or type(value) is not source[1]:
        return Formula(evaluate)
    return Formula(evaluate, ((source[0], value),))


def _plain(value: Json) -> Json:
    """Blank is "", lists and objects are their text; a checkbox counts as 0 or 1."""
    return float(value) if isinstance(value, (bool, int, float)) else as_text(value)


def _is_after(left: Json, right: Json) -> bool:
    """Of two instants as cells and literals spell them; blank is after nothing."""
    if not left or not right:
        return False
    first, second = (
        datetime.fromisoformat(str(each).replace("Z", "+00:00")) for each in (left, right)
    )
    return first > second


def _call(name: str, given: list[Formula]) -> Formula:
    match name, given:
        case "RECORD_ID", []:
            return Formula(lambda record: record.id, source=(RECORD_ID, str))
        case "IS_AFTER", [left, right]:
            return Formula(lambda record: _is_after(left.evaluate(record), right.evaluate(record)))
        case "AND", [_, *_]:
            keys = next((each.keys for each in given if each.keys is not None), None)
            return Formula(lambda record: all(e.evaluate(record) for e in given), keys)
        case "OR", [_, *_]:
            known = [each.keys for each in given if each.keys is not None]
            union = tuple(key for keys in known for key in keys)
            every = union if len(known) == len(given) else None
            return Formula(lambda record: any(e.evaluate(record) for e in given), every)
        case _:
            raise _invalid()
