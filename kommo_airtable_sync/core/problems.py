"""Collecting everything that is wrong with a configuration, to say it all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from kommo_airtable_sync.core.errors import ConfigurationError

LISTED_MAX = 20
"""So many allowed names are listed in a message; more would bury the sentence."""


class Mistakes(ConfigurationError):
    """A configuration with one or more things wrong.

    Args:
        source: the file, as the person knows it.
        found: each with the path of the offending key: ``fields[2].owner: ...``.
    """

    def __init__(self, source: str, found: Sequence[str]) -> None:
        self.found = tuple(found)
        one = f"{source}: {found[0]}"
        many = f"{source} has {len(found)} problems:\n  " + "\n  ".join(found)
        super().__init__(one if len(found) == 1 else many)


class Problems:
    """What is wrong, each with the path of the offending key (``fields[2].owner``).

    Args:
        source: the file, as the person knows it.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[str] = []

    def add(self, path: str, sentence: str) -> None:
        """Note one problem; an empty path is the file as a whole."""
        self.found.append(f"{path}: {sentence}" if path else sentence)

    def raise_if_any(self) -> None:
        """Stop here if anything is wrong.

        Raises:
            Mistakes: naming every problem.
        """
        if self.found:
            raise self.error()

    def error(self) -> Mistakes:
        """The error that names every problem."""
        return Mistakes(self.source, self.found)


def not_known(given: object, allowed: Iterable[object], noun: str = "one of") -> str:
    """Say ``'Stagee' is not one of (did you mean 'Stage'?); allowed: ...``."""
    names = [str(name) for name in allowed]
    folded = {name.casefold(): name for name in names}
    near = get_close_matches(str(given).casefold(), folded, n=1)
    guess = f" (did you mean {folded[near[0]]!r}?)" if near else ""
    listed = ", ".join(names[:LISTED_MAX]) or "none"
    more = f" and {len(names) - LISTED_MAX} more" if len(names) > LISTED_MAX else ""
    return f"{given!r} is not {noun}{guess}; allowed: {listed}{more}"
