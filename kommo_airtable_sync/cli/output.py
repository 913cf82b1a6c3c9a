"""Tables for people, JSON for scripts."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

WIDTH_MAX = 10_000
KEPT_WIDTH = 8
"""A column is never narrower, unless all its cells are."""


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on standard output; empty ones say so."""
    if not rows:
        typer.echo(f"{title}: none")
        return
    table = Table(title=title, title_justify="left")
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    for column, shown in zip(columns, zip(*cells, strict=True), strict=True):
        widest = max(len(line) for cell in (column, *shown) for line in cell.splitlines() or [""])
        # Nothing is left out: what does not fit is folded, and what is short stays on its line.
        table.add_column(column, overflow="fold", min_width=min(widest, KEPT_WIDTH))
    for row in cells:
        table.add_row(*row)
    console = Console()
    size = Measurement.get(console, console.options.update(max_width=WIDTH_MAX), table)
    # A file or a pipe has no width, and a terminal that is too narrow wraps lines by itself.
    wanted = size.minimum if console.is_terminal else size.maximum
    Console(width=max(console.width, wanted)).print(table)


@contextmanager
def progress_bars() -> Generator[Progress]:
    """Progress of several tasks, on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


def actor() -> str:
    """Who decides, for the journal; a container may know no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
