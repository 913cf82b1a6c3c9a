"""The part of Airtable's formula language that a sync's ``filterByFormula`` needs.

Understood: AND OR NOT, = != < > <= >=, {field name or id}, strings, numbers, BLANK(),
RECORD_ID(), LAST_MODIFIED_TIME(), IS_AFTER(a, b). All else is refused, never guessed.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kommo_airtable_sync.sandbox.airtable.cells import TEXTS, as_text
from kommo_airtable_sync.sandbox.airtable.instants import parse
from kommo_airtable_sync.sandbox.airtable.refusal import Refusal, typed
from kommo_airtable_sync.sandbox.airtable.schema import Field, Record, Table

Json = Any
Read = Callable[[Record, Field], Json]
Evaluate = Callable[[Record], Json]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>\d+(?:\.\d+)?|\.\d+) | (?P<name>[A-Za-z_]+)(?=\s*\() |
    (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*') | \{(?P<field>(?:[^}\\]|\\.)+)\} |
    (?P<symbol>!=|<=|>=|[=<>(),-]) )""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Json, Json], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
RECORD_ID = ""


class FormulaError(Exception):
    """A value that Airtable would show as ``#ERROR!``."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula, or a part of one.

    Args:
        evaluate: the value for one record.
        keys: if not None, only rows with one of these (field id, value) can be true, so that
            they are looked up; ``RECORD_ID`` stands for the record's own id.
        field: the field, if this part is a bare reference; ``RECORD_ID`` for RECORD_ID().
        constant: True if this part is a literal.
    """

    evaluate: Evaluate
    keys: tuple[tuple[str, Json], ...] | None = None
    field: Field | str | None = None
    constant: bool = False

    def keeps(self, record: Record) -> bool:
        """Whether the row stays: not for 0, false, "", NaN, [] and errors (AT:list-records)."""
        try:
            value = self.evaluate(record)
        except FormulaError:
            return False
        return bool(value) and not (isinstance(value, float) and math.isnan(value))


def invalid_formula(detail: str = "Invalid formula. Please check your formula text.") -> Refusal:
    """422 for a formula outside the language."""
    message = f"The formula for filtering records is invalid: {detail}"
    return typed(422, "INVALID_FILTER_BY_FORMULA", message)


def compile_formula(text: str, table: Table, read: Read) -> Formula:
    """Parse a formula.

    Args:
        text: the formula.
        table: whose fields it may name.
        read: gives a cell, computed ones included.

    Raises:
        Refusal: 422 ``INVALID_FILTER_BY_FORMULA``.
    """
    try:
        return _Parser(text, table, read).whole()
    except RecursionError:
        raise invalid_formula() from None


class _Parser:
    def __init__(self, text: str, table: Table, read: Read) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._table = table
        self._read = read

    def whole(self) -> Formula:
        parsed = self._comparison()
        if self._peek() != ("end", ""):
            raise invalid_formula()
        return parsed

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at]

    def _next(self) -> tuple[str, str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, symbol: str) -> None:
        if self._next() != ("symbol", symbol):
            raise invalid_formula()

    def _comparison(self) -> Formula:
        left = self._operand()
        while self._peek()[0] == "symbol" and self._peek()[1] in _COMPARE:
            sign = self._next()[1]
            left = _compare(sign, left, self._operand())
        return left

    def _operand(self) -> Formula:
        kind, text = self._next()
        if kind == "number":
            return _constant(float(text))
        if kind == "string":
            return _constant(re.sub(r"\\(.)", r"\1", text[1:-1]))
        if kind == "field":
            return self._reference(re.sub(r"\\(.)", r"\1", text))
        if kind == "name":
            return self._call(text.upper())
        if text == "-" and self._peek()[0] == "number":
            return _constant(-float(self._next()[1]))
        if text != "(":
            raise invalid_formula()
        inner = self._comparison()
        self._expect(")")
        return inner

    def _reference(self, name: str) -> Formula:
        field = self._table.find_field(name)
        if field is None:
            raise invalid_formula(f"Unknown field names: {name.lower()}")
        read = self._read
        return Formula(lambda record: read(record, field), field=field)

    def _arguments(self) -> list[Formula]:
        self._expect("(")
        found: list[Formula] = []
        while self._peek() != ("symbol", ")"):
            if found:
                self._expect(",")
            found.append(self._comparison())
        self._expect(")")
        return found

    def _call(self, name: str) -> Formula:
        given = self._arguments()
        match name, len(given):
            case "BLANK", 0:
                return _constant("")
            case "RECORD_ID", 0:
                return Formula(lambda record: record.id, field=RECORD_ID)
            case "LAST_MODIFIED_TIME", 0:
                return Formula(lambda record: record.modified)
            case "NOT", 1:
                return Formula(lambda record: not given[0].evaluate(record))
            case "IS_AFTER", 2:
                return _is_after(*given)
            case "AND", n if n > 0:
                keys = next((each.keys for each in given if each.keys is not None), None)
                return Formula(lambda record: all(e.evaluate(record) for e in given), keys)
            case "OR", n if n > 0:
                return Formula(lambda record: any(e.evaluate(record) for e in given), _union(given))
            case _:
                raise invalid_formula()


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise invalid_formula()
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return [*found, ("end", "")]


def _constant(value: Json) -> Formula:
    return Formula(lambda _: value, constant=True)


def _plain(value: Json) -> Json:
    """Blank is "", lists and objects are their text; a checkbox counts as 0 or 1."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    return as_text(value)


def _compare(sign: str, left: Formula, right: Formula) -> Formula:
    compare = _COMPARE[sign]

    def evaluate(record: Record) -> bool:
        ours, theirs = _plain(left.evaluate(record)), _plain(right.evaluate(record))
        if sign not in ("=", "!=") and type(ours) is not type(theirs):
            # In an ordering, blank counts as 0; other text beside a number is #ERROR!.
            ours, theirs = (0.0 if side == "" else side for side in (ours, theirs))
            if type(ours) is not type(theirs):
                raise FormulaError
        return compare(ours, theirs)

    return Formula(evaluate, _keys(left, right) if sign == "=" else None)


def _keys(left: Formula, right: Formula) -> tuple[tuple[str, Json], ...] | None:
    if left.constant:
        left, right = right, left
    if not right.constant or left.field is None:
        return None
    value = right.evaluate(Record("", 0, "", "", "", ""))
    if left.field == RECORD_ID:
        return ((RECORD_ID, value),)
    if isinstance(left.field, str) or value == "":
        return None
    indexed = (float,) if left.field.type == "number" else (str,)
    if not isinstance(value, indexed) or left.field.type not in (*TEXTS, "number"):
        return None
    return ((left.field.id, value),)


def _union(parts: list[Formula]) -> tuple[tuple[str, Json], ...] | None:
    found: list[tuple[str, Json]] = []
    for part in parts:
        if part.keys is None:
            return None
        found += part.keys
    return tuple(found)


def _is_after(left: Formula, right: Formula) -> Formula:
    def evaluate(record: Record) -> bool:
        ours, theirs = (parse(part.evaluate(record)) for part in (left, right))
        if ours is None or theirs is None:
            raise FormulaError
        return ours > theirs

    return Formula(evaluate)
