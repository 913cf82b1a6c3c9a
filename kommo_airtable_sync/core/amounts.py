"""Amounts that people typed into text: ``15 000,50``, ``$1,500.00``, ``1.500,00 EUR``.

A wrong guess is off by a factor of a thousand, so what can be read in two ways is refused.
"""

from __future__ import annotations

import re
from decimal import Decimal

from kommo_airtable_sync.core.sources import UnfitError, clipped

# No-break, narrow no-break, thin and figure spaces; the typographic apostrophe and minus.
SPELLINGS = str.maketrans("\u00a0\u202f\u2009\u2007\u2019\u2212", "    '-")
_CURRENCY = r"(?:(?:[A-Z]{1,3})?[$€£¥₹₽₴₸₺₩₪₫₱₦฿]|[A-Z]{3}|руб\.?|р\.|zł|Kč|kr\.?|Rs\.?)"
_AMOUNT = re.compile(
    rf"(?P<sign>-?) ?(?:{_CURRENCY})? ?(?P<minus>-?)(?P<figure>[0-9][0-9 .,']*?) ?(?:{_CURRENCY})?"
)
_GROUPED = re.compile(r"[0-9]{1,3}(?:([ '.,])[0-9]{3})(?:\1[0-9]{3})*")


def parse_amount(text: str) -> Decimal:
    """The number that a text means, whatever currency it names.

    Raises:
        UnfitError: if it is no number, or could be two; the message says which.
    """
    found = _AMOUNT.fullmatch(text.translate(SPELLINGS).strip())
    if found is None or (found["sign"] and found["minus"]):
        message = f"{clipped(text)} is not a number"
        raise UnfitError(message)
    amount = Decimal(_machine_spelling(found["figure"], text))
    return -amount if found["sign"] or found["minus"] else amount


def _machine_spelling(figure: str, text: str) -> str:
    """The figure with a decimal point and nothing else between its digits."""
    point = _decimal_point(figure, text)
    whole, _, fraction = figure.rpartition(point) if point else (figure, "", "0")
    grouped = _GROUPED.fullmatch(whole)
    if not fraction.isdigit() or not (whole.isdigit() or grouped):
        message = f"{clipped(text)} is not a number"
        raise UnfitError(message)
    return re.sub("[^0-9]", "", whole) + "." + fraction


def _decimal_point(figure: str, text: str) -> str:
    """Which of ``.`` and ``,`` ends the whole part; empty if none does."""
    marks = [mark for mark in figure if not mark.isdigit()]
    if not marks or marks[-1] in " '" or (len(marks) > 1 and len(set(marks)) == 1):
        return ""  # 1 500, or 1.500.000
    before, _, after = figure.rpartition(marks[-1])
    if len(marks) == 1 and len(after) == 3 and len(before) <= 3 and before != "0":
        message = (
            f"{clipped(text)} could be {before}{after} or {before}.{after}; "
            "write it without a thousands separator and with two decimals"
        )
        raise UnfitError(message)
    return marks[-1]
